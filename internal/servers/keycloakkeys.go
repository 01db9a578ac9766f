package servers

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// KeycloakKey is one key of a realm.
type KeycloakKey struct {
	KID       string `json:"kid"`
	Algorithm string `json:"algorithm"`
	Use       string `json:"use"`        // SIG or ENC
	Status    string `json:"status"`     // ACTIVE signs, PASSIVE only verifies, DISABLED is not published
	Provider  string `json:"providerId"` // the component that holds the key
	Priority  int    `json:"providerPriority"`
}

// Keys lists the realm's keys, those that are not published too.
func (r *KeycloakRealm) Keys(ctx context.Context) ([]KeycloakKey, error) {
	var answer struct {
		Keys []KeycloakKey `json:"keys"`
	}
	err := r.Call(ctx, http.MethodGet, "/keys", nil, &answer)
	return answer.Keys, err
}

// SigningKey is the key that signs tokens with an algorithm: of the active
// ones the one of highest priority.
func (r *KeycloakRealm) SigningKey(ctx context.Context, algorithm string) (KeycloakKey, error) {
	keys, err := r.Keys(ctx)
	if err != nil {
		return KeycloakKey{}, err
	}
	var signing *KeycloakKey
	for i, key := range keys {
		if key.Algorithm == algorithm && key.Use == "SIG" && key.Status == "ACTIVE" && (signing == nil || key.Priority > signing.Priority) {
			signing = &keys[i]
		}
	}
	if signing == nil {
		return KeycloakKey{}, fmt.Errorf("keycloak: realm %s has no active %s key", r.Name, algorithm)
	}
	return *signing, nil
}

// AddKey makes a new key for an algorithm (RS…, PS…, ES256, ES384, ES512 or
// EdDSA). Of several active keys the one of highest priority signs; a fresh
// realm's own have 100.
func (r *KeycloakRealm) AddKey(ctx context.Context, algorithm string, priority int) (KeycloakKey, error) {
	provider, config := keyProvider(algorithm)
	config["priority"] = []string{strconv.Itoa(priority)}
	config["active"], config["enabled"] = []string{"true"}, []string{"true"}
	var realm struct {
		ID string `json:"id"`
	}
	if err := r.Call(ctx, http.MethodGet, "", nil, &realm); err != nil {
		return KeycloakKey{}, err
	}
	id, err := r.admin.create(ctx, r.at("/components"), map[string]any{
		"name": fmt.Sprintf("%s %d", algorithm, priority), "parentId": realm.ID,
		"providerId": provider, "providerType": "org.keycloak.keys.KeyProvider", "config": config,
	})
	if err != nil {
		return KeycloakKey{}, err
	}
	keys, err := r.Keys(ctx)
	if err != nil {
		return KeycloakKey{}, err
	}
	for _, key := range keys {
		if key.Provider == id {
			return key, nil
		}
	}
	return KeycloakKey{}, fmt.Errorf("keycloak: realm %s does not list its new %s key", r.Name, algorithm)
}

func keyProvider(algorithm string) (provider string, config map[string][]string) {
	switch {
	case algorithm == "EdDSA":
		return "eddsa-generated", map[string][]string{"eddsaEllipticCurveKey": {"Ed25519"}}
	case strings.HasPrefix(algorithm, "ES"):
		curves := map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
		return "ecdsa-generated", map[string][]string{"ecdsaEllipticCurveKey": {curves[algorithm]}}
	default:
		return "rsa-generated", map[string][]string{"algorithm": {algorithm}, "keySize": {"2048"}}
	}
}

// RotateKey makes a new key that signs from now on. The old one still
// verifies: SetKeyState withdraws it.
func (r *KeycloakRealm) RotateKey(ctx context.Context, algorithm string) (before, now KeycloakKey, err error) {
	if before, err = r.SigningKey(ctx, algorithm); err != nil {
		return before, now, err
	}
	now, err = r.AddKey(ctx, algorithm, before.Priority+10)
	return before, now, err
}

// SetKeyState makes a key active (signs), passive (active false: verifies what
// was signed before) or disabled (no longer published).
func (r *KeycloakRealm) SetKeyState(ctx context.Context, key KeycloakKey, active, enabled bool) error {
	var component map[string]any
	at := "/components/" + key.Provider
	if err := r.Call(ctx, http.MethodGet, at, nil, &component); err != nil {
		return err
	}
	config, ok := component["config"].(map[string]any)
	if !ok {
		return fmt.Errorf("keycloak: the component of key %s has no config", key.KID)
	}
	config["active"], config["enabled"] = []string{strconv.FormatBool(active)}, []string{strconv.FormatBool(enabled)}
	return r.Call(ctx, http.MethodPut, at, component, nil)
}
