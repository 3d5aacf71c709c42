package queue

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"testing"
)

func TestStatusKinds(t *testing.T) {
	for _, s := range RolloutStatuses {
		finished := slices.Contains([]RolloutStatus{"failed", "succeeded", "cancelled"}, s)
		queued := slices.Contains([]RolloutStatus{"queuing", "requeuing"}, s)
		if s.Finished() != finished || s.Queued() != queued || s.Active() == (finished || queued) || !s.Valid() {
			t.Errorf("%s: finished %t, queued %t, active %t, valid %t", s, s.Finished(), s.Queued(), s.Active(), s.Valid())
		}
	}
	for _, s := range AttemptStatuses {
		terminal := slices.Contains([]AttemptStatus{"failed", "succeeded", "timeout"}, s)
		if s.Terminal() != terminal || !s.Valid() {
			t.Errorf("%s: terminal %t, valid %t", s, s.Terminal(), s.Valid())
		}
	}
	if RolloutStatus("").Valid() || AttemptStatus("cancelled").Valid() || WorkerStatus("dead").Valid() || Mode("").Valid() {
		t.Error("an unknown status or mode is valid")
	}
}

func TestConfigValidate(t *testing.T) {
	tests := []struct {
		c  Config
		ok bool
	}{
		{DefaultConfig(), true},
		{Config{MaxAttempts: 3, RetryCondition: AttemptStatuses}, true},
		{Config{}, false},
		{Config{MaxAttempts: -1}, false},
		{Config{MaxAttempts: 1, RetryCondition: []AttemptStatus{"cancelled"}}, false},
	}
	for _, tt := range tests {
		err := tt.c.Validate()
		if (err == nil) != tt.ok || (err != nil && KindOf(err) != Invalid) {
			t.Errorf("%+v: %v", tt.c, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for kind := Internal; kind <= Unavailable; kind++ {
		err := Errorf(kind, "cannot %s", "x")
		if err.Error() != "cannot x" || KindOf(err) != kind || kind.String() == "" || KindOfStatus(kind.HTTPStatus()) != kind {
			t.Errorf("kind %d (%s, status %d) comes back as %s", kind, kind, kind.HTTPStatus(), KindOfStatus(kind.HTTPStatus()))
		}
	}
	err := Wrap(Unavailable, io.ErrUnexpectedEOF, "reading a page")
	if err.Error() != "reading a page: unexpected EOF" || !errors.Is(err, io.ErrUnexpectedEOF) || KindOf(err) != Unavailable {
		t.Errorf("wrapped as %q of kind %v", err, KindOf(err))
	}
	if Wrap(Conflict, nil, "nothing") != nil || KindOf(io.EOF) != Internal {
		t.Error("nil was wrapped, or a strange error has a kind")
	}
	for status, want := range map[int]Kind{422: Invalid, 400: Invalid, 408: Unavailable, 502: Unavailable, 500: Internal, 302: Internal} {
		if got := KindOfStatus(status); got != want {
			t.Errorf("status %d is of kind %v, want %v", status, got, want)
		}
	}
}

func TestRandomID(t *testing.T) {
	for prefix, form := range map[IDPrefix]string{
		RolloutID: `^ro-[0-9a-f]{12}$`, AttemptID: `^at-[0-9a-f]{8}$`, ResourcesID: `^rs-[0-9a-f]{12}$`,
	} {
		id := RandomID(prefix)
		if !regexp.MustCompile(form).MatchString(id) || id == RandomID(prefix) {
			t.Errorf("id %s does not look like %s, or came twice", id, form)
		}
	}
}
