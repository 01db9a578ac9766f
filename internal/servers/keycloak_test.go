package servers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestKeycloakIssuesTheTokensTheTestsNeed(t *testing.T) {
	server := Keycloak(t)
	ctx := t.Context()
	realm, err := server.CreateRealm(ctx, "servers test", map[string]any{"accessTokenLifespan": 60})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := realm.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if realm.Issuer() != server.URL+"/realms/servers%20test" {
		t.Errorf("the issuer is %s", realm.Issuer())
	}
	for _, algorithm := range []string{"ES256", "PS256", "EdDSA"} {
		if _, err := realm.AddKey(ctx, algorithm, 100); err != nil {
			t.Fatal(err)
		}
	}
	user := KeycloakUser{Username: "alice", Password: "secret", RealmRoles: []string{"editor"}, Attributes: map[string][]string{"colour": {"red"}}}
	id, err := realm.CreateUser(ctx, user)
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]KeycloakClient{
		"a public client":           {ID: "public", Audiences: []string{"app", "other"}},
		"a confidential client":     {ID: "confidential", Secret: "s3cret"},
		"a client that signs ES256": {ID: "es256", SigningAlgorithm: "ES256"},
		"a client that signs PS256": {ID: "ps256", SigningAlgorithm: "PS256"},
		"a client that signs EdDSA": {ID: "eddsa", SigningAlgorithm: "EdDSA"},
		"a client with other typ":   {ID: "rfc9068", Attributes: map[string]string{"access.token.header.type.rfc9068": "true"}},
		"a client with an odd id":   {ID: "odd/id ü", Audiences: []string{"app"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if err := realm.CreateClient(ctx, client); err != nil {
				t.Fatal(err)
			}
			tokens, err := realm.PasswordTokens(ctx, client, "alice", "secret")
			if err != nil {
				t.Fatal(err)
			}
			header, claims := decode(t, tokens.AccessToken)
			algorithm, typ := "RS256", "JWT"
			if client.SigningAlgorithm != "" {
				algorithm = client.SigningAlgorithm
			}
			if client.ID == "rfc9068" {
				typ = "at+jwt"
			}
			if header["alg"] != algorithm || header["typ"] != typ {
				t.Errorf("the header is %v", header)
			}
			if claims["sub"] != id || claims["iss"] != realm.Issuer() || claims["email_verified"] != true || claims["azp"] != client.ID {
				t.Errorf("the claims are %v", claims)
			}
			for _, audience := range client.Audiences {
				if list, _ := claims["aud"].([]any); !slices.Contains(list, any(audience)) && claims["aud"] != audience {
					t.Errorf("aud is %v", claims["aud"])
				}
			}
			if roles, _ := json.Marshal(claims["realm_access"]); !strings.Contains(string(roles), `"editor"`) {
				t.Errorf("realm_access is %s", roles)
			}
		})
	}
	t.Run("keys rotate and are withdrawn", func(t *testing.T) { rotate(t, realm) })
	t.Run("a client attribute is set", func(t *testing.T) {
		if err := realm.SetClientAttribute(t.Context(), "public", "access.token.signed.response.alg", "ES256"); err != nil {
			t.Fatal(err)
		}
		tokens, err := realm.PasswordTokens(t.Context(), KeycloakClient{ID: "public"}, "alice", "secret")
		if err != nil {
			t.Fatal(err)
		}
		if header, _ := decode(t, tokens.AccessToken); header["alg"] != "ES256" {
			t.Errorf("the header is %v", header)
		}
	})
	t.Run("a user is logged out and deleted", func(t *testing.T) {
		ctx := t.Context()
		if err := realm.Logout(ctx, id); err != nil {
			t.Error(err)
		}
		if err := realm.DeleteUser(ctx, id); err != nil {
			t.Error(err)
		}
		_, err := realm.PasswordTokens(ctx, KeycloakClient{ID: "confidential", Secret: "s3cret"}, "alice", "secret")
		var status *KeycloakError
		if !errors.As(err, &status) || status.Status != http.StatusBadRequest {
			t.Errorf("a deleted user logs in: %v", err)
		}
	})
}

func rotate(t *testing.T, realm *KeycloakRealm) {
	ctx := t.Context()
	before, now, err := realm.RotateKey(ctx, "RS256")
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := realm.PasswordTokens(ctx, KeycloakClient{ID: "confidential", Secret: "s3cret"}, "alice", "secret")
	if err != nil {
		t.Fatal(err)
	}
	if header, _ := decode(t, tokens.AccessToken); header["kid"] != now.KID || now.KID == before.KID {
		t.Errorf("kid %v signs, want %s, before %s", header["kid"], now.KID, before.KID)
	}
	if err := realm.SetKeyState(ctx, before, false, true); err != nil {
		t.Fatal(err)
	}
	if !published(t, realm, before.KID) {
		t.Error("a passive key is not published")
	}
	if err := realm.SetKeyState(ctx, before, false, false); err != nil {
		t.Fatal(err)
	}
	if published(t, realm, before.KID) {
		t.Error("a disabled key is published")
	}
}

func published(t *testing.T, realm *KeycloakRealm, kid string) bool {
	t.Helper()
	resp, err := http.Get(realm.Issuer() + "/protocol/openid-connect/certs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []KeycloakKey }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(set.Keys, func(key KeycloakKey) bool { return key.KID == kid })
}

func TestKeycloakKeepsItsRealmsWhenKilled(t *testing.T) {
	server := StartKeycloak(t)
	ctx := t.Context()
	realm, err := server.CreateRealm(ctx, "kept", nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := realm.SigningKey(ctx, "RS256")
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	if _, err := realm.Keys(ctx); err == nil {
		t.Error("a killed server answers")
	}
	server.Start(t)
	after, err := realm.SigningKey(ctx, "RS256")
	if err != nil {
		t.Fatal(err)
	}
	if after.KID != before.KID {
		t.Errorf("the key is %s, before %s", after.KID, before.KID)
	}
}

// decode returns header and claims of a compact token, unverified.
func decode(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	for part, into := range map[string]*map[string]any{parts[0]: &header, parts[1]: &claims} {
		data, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, into); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}
