package keycloakcacheauth

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// defaultCacheStatus is the header of RFC 9211.
const defaultCacheStatus = "Cache-Status"

// cacheName is this module's name in it, a token of RFC 8941.
const cacheName = "keycloak-cache-auth"

func (h *Handler) checkCacheStatus() error {
	if h.CacheStatus == "" {
		return nil
	}
	if err := checkHeaderName(h.CacheStatus); err != nil {
		return fmt.Errorf("cache_status: %w", err)
	}
	return nil
}

// cacheStatusOf returns what tells, in a member's answer, where the member was
// found. It is added behind what the upstream says of its own caches: that is
// the order of RFC 9211 section 2.
func (h *Handler) cacheStatusOf(id *identity) onAnswer {
	from, loadedAt := id.source, id.loadedAt
	return func(_ int, header http.Header) {
		if header == nil {
			return // error routes may answer, and it may be with another's page
		}
		left := h.members.life.ttl - h.members.now().Sub(loadedAt)
		header.Add(h.CacheStatus, cacheStatus(from, h.members.uncached, left))
	}
}

// cacheStatus is one member of the list that RFC 9211 describes. It names
// neither tenant nor user.
func cacheStatus(from source, uncached bool, left time.Duration) string {
	ttl := "; ttl=" + strconv.FormatInt(int64(left/time.Second), 10)
	switch from {
	case sourceMemory, sourceRedis:
		return cacheName + "; hit" + ttl + "; detail=" + string(from)
	case sourceStale: // negative: since when it is too old
		return cacheName + "; fwd=stale" + ttl + "; detail=" + string(from)
	default:
		if uncached {
			return cacheName + "; fwd=bypass; detail=" + string(from)
		}
		return cacheName + "; fwd=uri-miss; detail=" + string(from)
	}
}
