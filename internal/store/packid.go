package store

import "encoding/hex"

// The kinds of packed ids. Those of UUIDs are marked by upper case.
const (
	kindSession = 's'
	kindUser    = 'u'
	packedUUID  = 'a' - 'A'

	uuidLength = 36
)

// packID appends an id of a kind in a form that no other id or kind has. UUIDs
// in their usual spelling, which is what Keycloak has for users and most
// sessions, take 17 bytes instead of 37.
func packID(to []byte, kind byte, id string) []byte {
	if !isUUID(id) {
		return append(append(to, kind), id...)
	}
	to = append(to, kind-packedUUID)
	high := true
	for i := range uuidLength {
		switch digit := hexDigit(id[i]); {
		case id[i] == '-':
			continue
		case high:
			to = append(to, digit<<4)
			high = false
		default:
			to[len(to)-1] |= digit
			high = true
		}
	}
	return to
}

// unpackID returns what was packed.
func unpackID(key string) (kind byte, id string) {
	if kind = key[0]; kind >= 'a' {
		return kind, key[1:]
	}
	digits := hex.EncodeToString([]byte(key[1:]))
	return kind + packedUUID, digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

func isUUID(id string) bool {
	if len(id) != uuidLength {
		return false
	}
	for i := range uuidLength {
		switch c := id[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return true
}

func hexDigit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
