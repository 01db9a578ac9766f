package store

import "cmp"

const (
	// maxPage is how many events of the log are read at once, at the most, and
	// firstPage as long as nothing is known of their size.
	maxPage   = 1000
	firstPage = 64

	// maxPageBytes is about how many bytes a page is to have. Redis cannot be
	// asked for a number of bytes, so it is the number of events that gives way.
	maxPageBytes = 1 << 20
)

// pageSizer says how many events are read at once. Somebody who writes large
// ones into the log must not make every node hold a thousand of them.
type pageSizer struct{ size int }

func (p *pageSizer) next() int { return cmp.Or(p.size, firstPage) }

// was learns from a page. One that could not be read may have been too long for
// the time there is.
func (p *pageSizer) was(page []record, err error) {
	size, bytes := p.next(), 0
	for _, r := range page {
		bytes += sizeOf(r.fields)
	}
	switch {
	case err != nil:
		size /= 4
	case bytes > maxPageBytes:
		size = min(size, len(page)) * maxPageBytes / bytes
	default:
		size *= 2
	}
	p.size = min(max(size, 1), maxPage)
}
