package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// owner lets a program use what starts servers for tests. What was started ends when
// the function that [owned] runs has returned, and with the process if that is killed.
type owner struct {
	testing.TB // for its unexported method; what is called is below

	ctx      context.Context
	mu       sync.Mutex
	cleanups []func()
	errs     []error
}

// giveUp is what Fatalf and Skipf panic with.
type giveUp struct{ err error }

// errMissing says that a server is not installed here.
var errMissing = errors.New("something is missing here")

// owned runs f, ends what f has started, and returns what went wrong.
func owned(ctx context.Context, f func(o *owner) error) (err error) {
	o := &owner{ctx: ctx}
	defer func() {
		thrown := recover()
		if given, ok := thrown.(giveUp); ok {
			thrown, err = nil, given.err
		}
		err = errors.Join(err, o.end())
		if thrown != nil {
			panic(thrown)
		}
	}()
	return f(o)
}

// end calls the cleanups, the last one first.
func (o *owner) end() error {
	for {
		o.mu.Lock()
		last := len(o.cleanups) - 1
		if last < 0 {
			o.mu.Unlock()
			return errors.Join(o.errs...)
		}
		f := o.cleanups[last]
		o.cleanups = o.cleanups[:last]
		o.mu.Unlock()
		f()
	}
}

func (o *owner) Helper()                  {}
func (o *owner) Context() context.Context { return o.ctx }

func (o *owner) Cleanup(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cleanups = append(o.cleanups, f)
}

func (o *owner) Errorf(format string, args ...any) { o.join(fmt.Errorf(format, args...)) }

// join notes an error, if there is one.
func (o *owner) join(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.errs = append(o.errs, err)
}

func (o *owner) Error(args ...any) { o.Errorf("%s", fmt.Sprint(args...)) }

func (o *owner) Fatalf(format string, args ...any) { panic(giveUp{fmt.Errorf(format, args...)}) }

func (o *owner) Fatal(args ...any) { o.Fatalf("%s", fmt.Sprint(args...)) }

func (o *owner) Skipf(format string, args ...any) {
	panic(giveUp{fmt.Errorf("%w: %s", errMissing, fmt.Sprintf(format, args...))})
}
