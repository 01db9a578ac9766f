package token

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type wycheproofRow struct {
	File   string `json:"file"`
	ID     int    `json:"tcId"`
	Group  string `json:"group"`
	Test   string `json:"test"`
	Expect string `json:"expected_signature_layer"`
}

type wycheproofFile struct {
	Groups []struct {
		Public  jsontext.Value `json:"public"`
		Private jsontext.Value `json:"private"`
		Tests   []struct {
			ID  int            `json:"tcId"`
			JWS jsontext.Value `json:"jws"`
			JWE jsontext.Value `json:"jwe"`
		} `json:"tests"`
	} `json:"testGroups"`
}

type wycheproofVector struct {
	keys  jsontext.Value
	token string
}

// The payloads there are no claims, so the rows go through what comes before them:
// compact form, header, key and signature.
func TestWycheproofVectorsAtTheSignatureLayer(t *testing.T) {
	vectors := wycheproofVectors(t)
	rows := 0
	for line := range bytes.Lines(readFile(t, "wycheproof", "wycheproof-manifest.jsonl")) {
		var row wycheproofRow
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		rows++
		t.Run(fmt.Sprintf("JS-031 %s %d %s %s", row.File, row.ID, row.Group, row.Test), func(t *testing.T) {
			vector, ok := vectors[fmt.Sprint(row.File, row.ID)]
			if !ok {
				t.Fatal("not in the file")
			}
			err := vector.verify(t)
			if want := row.Expect == "accept"; want != (err == nil) {
				t.Errorf("got %v, want %s", err, row.Expect)
			}
		})
	}
	if rows != 510 {
		t.Errorf("%d rows, want 510", rows)
	}
}

func (vector wycheproofVector) verify(t *testing.T) error {
	set := vector.keys
	var probe struct {
		Keys jsontext.Value `json:"keys"`
	}
	if json.Unmarshal(set, &probe) == nil && probe.Keys == nil {
		set = jsontext.Value(`{"keys":[` + string(set) + `]}`)
	}
	v, _ := verifierOf(t, "https://kc.test/realms/r", set, time.Unix(1795255000, 0))
	return v.verifySignatureOf(t, vector.token)
}

// verifySignatureOf looks at everything of a token that comes before its claims.
func (v *Verifier) verifySignatureOf(t *testing.T, raw string) error {
	t.Helper()
	header, payload, signature, err := decodeCompact(raw)
	if err != nil {
		return err
	}
	a := &attempt{raw: raw, signature: signature, payload: payloadOf(payload)}
	a.signed = raw[:strings.LastIndexByte(raw, '.')]
	if err := v.parseHeader(a, header); err != nil {
		return err
	}
	return v.verifySignature(t.Context(), a, v.asking())
}

func payloadOf(text []byte) payload { return payload{raw: text} }

func wycheproofVectors(t *testing.T) map[string]wycheproofVector {
	vectors := make(map[string]wycheproofVector)
	for _, name := range []string{
		"json_web_signature_test", "json_web_key_test", "json_web_crypto_test", "json_web_encryption_test",
	} {
		for _, group := range decodeFile[wycheproofFile](t, "wycheproof", name+".json").Groups {
			keys := group.Public
			if keys == nil { // symmetric, or private ones
				keys = group.Private
			}
			for _, test := range group.Tests {
				text := test.JWS
				if text == nil {
					text = test.JWE
				}
				token := string(text) // the JSON form stays JSON
				if text.Kind() == '"' {
					unquoted, err := jsontext.AppendUnquote(nil, text)
					if err != nil {
						t.Fatal(err)
					}
					token = string(unquoted)
				}
				vectors[fmt.Sprint(name, test.ID)] = wycheproofVector{keys, token}
			}
		}
	}
	return vectors
}
