package token

import (
	"fmt"
	"strings"
)

// issuerHint says why an issuer is none of those known, which are URLs and templates.
func issuerHint(issuer string, isText bool, known ...string) string {
	if !isText {
		return "the token names no issuer (iss)"
	}
	got := "the token's issuer is " + quote(issuer)
	for _, one := range known {
		template, err := ParseTemplate(one)
		isTemplate := err == nil
		switch {
		case isTemplate && fits(template, issuer):
			return fmt.Sprintf("%s, which fits %s, but its tenant is none that is allowed", got, quote(one))
		case isTemplate && fits(Template{pathOf(template.before), template.after}, pathOf(issuer)),
			!isTemplate && pathOf(issuer) == pathOf(one) && pathOf(one) != "":
			return fmt.Sprintf("%s, configured is %s: if it is the same realm under another host name, "+
				"configure the name in the token and reach Keycloak through backchannel_url, or set Keycloak's "+
				"hostname option", got, quote(one))
		case strings.EqualFold(strings.TrimRight(issuer, "/"), strings.TrimRight(one, "/")):
			return fmt.Sprintf("%s, configured is %s: they must be equal, letter case and the slash at the end "+
				"included", got, quote(one))
		}
	}
	if len(known) == 1 {
		return fmt.Sprintf("%s, configured is %s: the token is of another realm or Keycloak", got, quote(known[0]))
	}
	return fmt.Sprintf("%s, configured are %s: the token is of another realm or Keycloak", got, quoteList(known))
}

func fits(t Template, issuer string) bool {
	_, ok := t.Tenant(issuer)
	return ok
}

// pathOf is what follows the host in a URL.
func pathOf(u string) string {
	_, rest, _ := strings.Cut(u, "//")
	_, rest, _ = strings.Cut(rest, "/")
	return rest
}
