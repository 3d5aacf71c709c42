package dataset

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/aglq/aglq/internal/child"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker/emit"
)

// Measures has attempts measured.
type Measures struct {
	Source Source
	Store  Judged // where the verdicts are filed
	Filter Filter // which attempts; the rollouts must have finished
	// Name is that of the measure. An attempt that has a verdict of it is not measured
	// again, unless Again.
	Name  string
	Again bool
	// Ask gives the verdict on an attempt, told as [AppendQuestion] writes it. It is
	// called by several goroutines. An error is no verdict: the attempt has neither
	// passed nor failed, and is measured again the next time.
	Ask func(ctx context.Context, question []byte) (Verdict, error)
	// Concurrency is how many attempts are measured at a time: 4 when 0.
	Concurrency int
	// Observe, if not nil, is told what became of each attempt that was measured; it
	// is called by one goroutine at a time. The verdict is that of Ask.
	Observe func(c *Candidate, v Verdict, err error)
}

// MeasureCounts says what a measure found.
type MeasureCounts struct {
	Passed, Failed, Errors int64
	Known                  int64 // that had a verdict before
}

// Run measures what the filter selects. The error is one of reading attempts or of
// filing verdicts; those of single attempts are counted.
func (m *Measures) Run(ctx context.Context) (MeasureCounts, error) {
	var counts MeasureCounts
	if m.Name == "" {
		return counts, queue.Errorf(queue.Invalid, "a measure needs a name")
	}
	for _, s := range m.Filter.statuses() {
		if !s.Finished() {
			return counts, queue.Errorf(queue.Invalid, "rollouts that are %s cannot be measured: they have not finished", s)
		}
	}
	var mu sync.Mutex
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(cmp.Or(m.Concurrency, 4))
	err := func() error {
		var ignored Counts
		for c, err := range Select(inner, m.Source, m.Filter, &ignored) {
			if err != nil {
				return err
			}
			if _, known := c.Verdicts[m.Name]; known && !m.Again {
				mu.Lock()
				counts.Known++
				mu.Unlock()
				continue
			}
			group.Go(func() error {
				v, failed, err := m.measure(inner, c)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				counts.count(v, failed)
				if m.Observe != nil {
					m.Observe(c, v, failed)
				}
				return nil
			})
		}
		return nil
	}()
	waited := group.Wait()
	if waited != nil { // it is why the reading ended
		err = waited
	}
	return counts, err
}

func (c *MeasureCounts) count(v Verdict, err error) {
	switch {
	case err != nil:
		c.Errors++
	case v.Passed:
		c.Passed++
	default:
		c.Failed++
	}
}

// measure asks for a verdict and files it. Failed is why there is none.
func (m *Measures) measure(ctx context.Context, c *Candidate) (v Verdict, failed, err error) {
	question, failed := AppendQuestion(nil, c)
	if failed == nil {
		v, failed = m.Ask(ctx, question)
	}
	if ctx.Err() != nil {
		return v, nil, context.Cause(ctx) // and not the fault of the attempt
	}
	if failed != nil {
		return v, failed, nil
	}
	attributes := map[string]any{measureName: m.Name, measurePassed: v.Passed}
	if v.Reason != "" {
		attributes[measureReason] = v.Reason
	}
	if v.Score != nil {
		attributes[measureScore] = *v.Score
	}
	outcome := "failed"
	if v.Passed {
		outcome = "passed"
	}
	a := c.Rollout.Attempt
	if a.AttemptID != c.AttemptID {
		a, err = attempt(ctx, m.Store, c.Rollout.RolloutID, c.AttemptID)
	}
	if err == nil {
		err = annotate(ctx, m.Store, c.Rollout.Rollout, *a, emit.Tags{"measure:" + m.Name + ":" + outcome}, attributes)
	}
	if kind := queue.KindOf(err); kind == queue.Conflict || kind == queue.NotFound { // it has changed meanwhile
		return v, err, nil
	}
	return v, nil, err
}

// AppendQuestion appends what a measure is told of an attempt, as an object:
// rollout_id, attempt_id, status, mode, resources_id, input, metadata, reward, the
// messages and tools of its last conversation, and all conversations, each with its
// messages and tools. Malformed spans are an Invalid error.
func AppendQuestion(dst []byte, c *Candidate) ([]byte, error) {
	all, err := Conversations(c.Spans)
	if err != nil {
		return dst, err
	}
	all = Longest(all)
	r := &c.Rollout
	dst = rawjson.AppendString(append(dst, `{"rollout_id":`...), r.RolloutID)
	dst = rawjson.AppendString(append(dst, `,"attempt_id":`...), c.AttemptID)
	dst = rawjson.AppendString(append(dst, `,"status":`...), string(r.Status))
	mode := string(r.Mode)
	for _, m := range []struct {
		name string
		text *string
	}{{"mode", &mode}, {"resources_id", r.ResourcesID}} {
		dst = append(append(append(dst, ',', '"'), m.name...), '"', ':')
		if m.text == nil || *m.text == "" {
			dst = append(dst, rawjson.Null...)
		} else {
			dst = rawjson.AppendString(dst, *m.text)
		}
	}
	dst = append(append(dst, `,"input":`...), cmp.Or(string(r.Input), "null")...)
	dst = append(append(dst, `,"metadata":`...), cmp.Or(string(r.Metadata), "null")...)
	dst = appendReward(append(dst, `,"reward":`...), c.Reward)
	var last Conversation
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	dst = last.appendMembers(append(dst, ','))
	dst = append(dst, `,"conversations":[`...)
	for i := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(all[i].appendMembers(append(dst, '{')), '}')
	}
	return append(dst, ']', '}'), nil
}

func (c *Conversation) appendMembers(dst []byte) []byte {
	dst = appendMessages(append(dst, `"messages":`...), c.Messages)
	dst = append(dst, `,"tools":`...)
	if c.Tools == nil {
		return append(dst, rawjson.Null...)
	}
	return append(dst, c.Tools...)
}

// measureGrace is how long a measure may take to end when it is told to.
const measureGrace = time.Second

// answerMost is the most that a measure may print, in bytes.
const answerMost = 1 << 20

// ExecMeasure makes the Ask of a measure of a shell's command. It reads the question
// from standard input and answers on standard output with an object: passed, true or
// false, and, if it likes, reason, a text, and score, a number. All of the output, or
// its last line, must be that. A command that fails, that takes longer than timeout
// (0 is no limit), or that answers otherwise is an error.
func ExecMeasure(command string, timeout time.Duration) func(ctx context.Context, question []byte) (Verdict, error) {
	return func(ctx context.Context, question []byte) (Verdict, error) {
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the measure took longer than %s", timeout))
			defer cancel()
		}
		stdout, stderr := &child.Head{Most: answerMost}, &child.Tail{Most: 4 << 10}
		state, err := child.Run(ctx, exec.Command("sh", "-c", command), child.Options{
			Feed: child.Input(question), Stdout: stdout, Stderr: stderr, Grace: measureGrace,
		})
		switch cause := context.Cause(ctx); {
		case cause != nil:
			return Verdict{}, cause
		case err != nil:
			return Verdict{}, fmt.Errorf("starting the measure: %w", err)
		case !state.Success():
			return Verdict{}, fmt.Errorf("the measure failed: %s%s", state, lastLine(string(stderr.Bytes())))
		}
		if stdout.Over {
			return Verdict{}, fmt.Errorf("the measure printed more than %d bytes", answerMost)
		}
		return ParseVerdict(stdout.Bytes())
	}
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	if text = strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:]); text != "" {
		return ": " + text
	}
	return ""
}

// ParseVerdict reads what a measure answered; see [ExecMeasure].
func ParseVerdict(text []byte) (Verdict, error) {
	v := child.Answer(text)
	if v == nil {
		return Verdict{}, fmt.Errorf("the measure answered %.80q; it must be an object with passed", text)
	}
	passed, reason, score := v.Get("passed"), v.Get("reason"), v.Get("score")
	out := Verdict{Passed: passed.Bool(), Reason: reason.Text(), Score: score.FloatOrNil()}
	switch {
	case passed.Kind() != rawjson.KindBool:
		return Verdict{}, fmt.Errorf("the measure answered %.80q; passed must be true or false", v)
	case !reason.IsNull() && reason.Kind() != rawjson.KindString:
		return Verdict{}, fmt.Errorf("the measure answered %.80q; reason must be a text", v)
	case !score.IsNull() && (out.Score == nil || math.IsNaN(*out.Score) || math.IsInf(*out.Score, 0)):
		return Verdict{}, fmt.Errorf("the measure answered %.80q; score must be a finite number", v)
	}
	return out, nil
}
