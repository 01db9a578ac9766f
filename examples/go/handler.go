package upstream

import (
	"context"
	"errors"
	"net/http"
)

type userKey struct{}

// UserOf returns the user of a request that went through [Handler], nil if it has none.
func UserOf(ctx context.Context) *User {
	user, _ := ctx.Value(userKey{}).(*User)
	return user
}

// Handler lets requests with a good assertion, or with none, pass to next.
func Handler(v *Verifier, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch fields := r.Header.Values("X-User-Assertion"); len(fields) {
		case 0:
		case 1:
			user, err := v.Verify(r.Context(), fields[0])
			if errors.Is(err, ErrUnavailable) {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), userKey{}, user))
		default:
			http.Error(w, "several assertions", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
