// Package ask puts questions to a language model for an algorithm, and asks again
// when the model's server is away or busy.
package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aglq/aglq/internal/sleep"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/llmclient"
)

// Defaults of Asker.
const (
	DefaultAttempts = 5
	DefaultPause    = time.Second
	// DefaultTimeout bounds one call: models that reason take minutes.
	DefaultTimeout = 10 * time.Minute
)

// Asker asks one server. It is safe for concurrent use.
type Asker struct {
	Client *llmclient.Client
	// Attempts is how often a question is put: DefaultAttempts when 0. Errors that say
	// that the question is wrong are not repeated.
	Attempts int
	// Pause is how long the first pause between attempts is, about: DefaultPause when
	// 0. Each is twice as long as the one before.
	Pause  time.Duration
	Logger *slog.Logger // slog.Default when nil
}

// Ask returns the text of the model's answer, without the white space around it.
func (a *Asker) Ask(ctx context.Context, r llmclient.Request) (string, error) {
	pause := cmp.Or(a.Pause, DefaultPause)
	for attempt := 1; ; attempt++ {
		text, err := a.once(ctx, r)
		if err == nil {
			return text, nil
		}
		if ctx.Err() != nil || Hopeless(err) || attempt >= cmp.Or(a.Attempts, DefaultAttempts) {
			return "", fmt.Errorf("asking model %s, attempt %d: %w", cmp.Or(r.Model, a.Client.Model), attempt, err)
		}
		cmp.Or(a.Logger, slog.Default()).Warn("a model is asked again", "model", cmp.Or(r.Model, a.Client.Model), "attempt", attempt, "error", err)
		_ = sleep.For(ctx, pause/2+rand.N(pause)) // the next call says what it ended with
		pause *= 2
	}
}

func (a *Asker) once(ctx context.Context, r llmclient.Request) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, DefaultTimeout, fmt.Errorf("no answer within %s", DefaultTimeout))
	defer cancel()
	res, err := a.Client.Chat(ctx, r)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(res.Text()), nil
}

// Hopeless reports whether an error says that the question, the key or the model is
// wrong, so that no repetition mends it.
func Hopeless(err error) bool {
	var status *llmclient.StatusError
	if !errors.As(err, &status) {
		return false
	}
	switch status.Status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status.Status >= 400 && status.Status < 500
}

// Temperature is the parameters of a request that asks for one.
func Temperature(t float64) rawjson.Value {
	return append(rawjson.AppendFloat([]byte(`{"temperature":`), t), '}')
}
