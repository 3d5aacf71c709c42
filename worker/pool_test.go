package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/worker"
)

// poolLoop is an agent in the shell: it runs a script for each line, with the id
// in $id and the line in $line, and $n tasks before it.
func poolLoop(script string) []string {
	return []string{"sh", "-c", `n=0; while read -r line; do id=${line#*\"id\":\"}; id=${id%%\"*}; ` + script + `
n=$((n+1)); done`}
}

func newPool(t *testing.T, o worker.PoolOptions) *worker.Pool {
	t.Helper()
	o.Logger = quiet
	if o.Grace == 0 {
		o.Grace = 200 * time.Millisecond
	}
	p := worker.NewPool(o)
	t.Cleanup(func() { p.Close(context.Background()) })
	return p
}

// poolOf is a pool of one script's agents.
func poolOf(t *testing.T, script string) *worker.Pool {
	t.Helper()
	return newPool(t, worker.PoolOptions{ExecOptions: worker.ExecOptions{Command: poolLoop(script)}})
}

// runPool runs a task for each input, one after another.
func runPool(t *testing.T, p *worker.Pool, o worker.Options, inputs ...string) (done []queue.AttemptedRollout, spans [][]queue.Span) {
	t.Helper()
	s := newStore(t)
	ids := enqueue(t, s, nil, inputs...)
	start(t, s, p.Handle, o)
	for _, id := range ids {
		done = append(done, finished(t, s, id))
		spans = append(spans, spansOf(t, s, id))
	}
	return done, spans
}

func TestPoolAnswers(t *testing.T) {
	cases := map[string]struct{ answer, value, failure string }{
		"reward":         {answer: `"reward":0.25`, value: "0.25"},
		"rewards":        {answer: `"rewards":{"a":1,"b":2},"primary":"b"`, value: "2.0"},
		"spans":          {answer: `"spans":[{"name":"agentlightning.annotation","attributes":{"agentlightning.reward.0.value":7}}]`, value: "7"},
		"boolean":        {answer: `"reward":true`, value: "1.0"},
		"no reward":      {answer: `"note":"done"`},
		"null":           {answer: `"reward":null,"error":null`},
		"error":          {answer: `"error":"no luck","reward":1`, failure: "no luck"},
		"error object":   {answer: `"error":{"message":"no luck","type":"ValueError","stack":"line 1"}`, failure: "no luck"},
		"empty error":    {answer: `"error":""`, failure: "the agent reported an error without a text"},
		"wrong reward":   {answer: `"reward":"high"`, failure: `the agent's answer is malformed: its reward is no number: "high"`},
		"wrong spans":    {answer: `"spans":{}`, failure: `the agent's answer is malformed: its spans are no list: {}`},
		"primary absent": {answer: `"rewards":{"a":1},"primary":"b"`, failure: `the agent's answer is malformed: its primary reward "b" is not among its rewards`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, worker.PoolOptions{ExecOptions: worker.ExecOptions{
				Command: poolLoop(`echo "{\"id\":\"$id\",$ANSWER}"`), Env: append(os.Environ(), "ANSWER="+c.answer),
			}})
			done, spans := runPool(t, p, worker.Options{}, "1")
			want := queue.RolloutSucceeded
			if c.failure != "" {
				want = queue.RolloutFailed
			}
			if got := done[0].Attempt.Metadata.Get("error").Text(); done[0].Status != want || got != c.failure {
				t.Fatalf("status %s with the error %q, want %s with %q", done[0].Status, got, want, c.failure)
			}
			if c.value != "" {
				if got := attribute(t, spans[0], "agentlightning.annotation", "agentlightning.reward.0.value"); got != c.value {
					t.Errorf("reward %s, want %s", got, c.value)
				}
			}
			attribute(t, spans[0], "aglq.exec", "aglq.stdout.tail")
			if name == "error object" {
				if got := attribute(t, spans[0], "agentlightning.exception", "exception.type"); got != `"ValueError"` {
					t.Errorf("exception of type %s", got)
				}
			}
		})
	}
}

func TestPoolKeepsItsAgents(t *testing.T) {
	t.Parallel()
	p := poolOf(t, `echo "{\"id\":\"$id\",\"reward\":$n}"`)
	_, spans := runPool(t, p, worker.Options{}, "1", "2", "3")
	for i := range spans {
		if got, want := attribute(t, spans[i], "agentlightning.annotation", "agentlightning.reward.0.value"), fmt.Sprintf("%d.0", i); got != want {
			t.Errorf("task %d was number %s of its agent", i, got)
		}
	}
}

func TestPoolMaxTasks(t *testing.T) {
	t.Parallel()
	p := newPool(t, worker.PoolOptions{MaxTasks: 2, ExecOptions: worker.ExecOptions{
		Command: poolLoop(`echo "{\"id\":\"$id\",\"reward\":$n}"`),
	}})
	_, spans := runPool(t, p, worker.Options{}, "1", "2", "3", "4", "5")
	var numbers []string
	for i := range spans {
		numbers = append(numbers, attribute(t, spans[i], "agentlightning.annotation", "agentlightning.reward.0.value"))
	}
	if diff := cmp.Diff([]string{"0.0", "1.0", "0.0", "1.0", "0.0"}, numbers); diff != "" {
		t.Error(diff)
	}
}

func TestPoolConcurrency(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// Each agent waits until four of them have a task.
	p := poolOf(t, `touch `+dir+`/$$; until [ $(ls `+dir+` | wc -l) -ge 4 ]; do sleep 0.02; done; echo "{\"id\":\"$id\"}"`)
	done, _ := runPool(t, p, worker.Options{Concurrency: 4}, "1", "2", "3", "4", "5", "6")
	for _, r := range done {
		if r.Status != queue.RolloutSucceeded {
			t.Errorf("%s: %s", r.RolloutID, r.Attempt.Metadata)
		}
	}
	if agents, err := os.ReadDir(dir); err != nil || len(agents) != 4 {
		t.Errorf("%d agents: %v", len(agents), err)
	}
}

func TestPoolCrash(t *testing.T) {
	t.Parallel()
	p := poolOf(t, `case $line in *die*) echo oh no >&2; exit 3;; *leave*) exit 0;; *kill*) kill -9 $$;; esac; echo "{\"id\":\"$id\",\"reward\":1}"`)
	done, spans := runPool(t, p, worker.Options{}, `"good"`, `"die"`, `"good"`, `"leave"`, `"kill"`, `"good"`)
	for i, want := range []string{
		"", "exit status 3: oh no", "", "the agent ended before it answered: exit status 0", "killed by signal killed", "",
	} {
		if got := done[i].Attempt.Metadata.Get("error").Text(); got != want {
			t.Errorf("task %d: error %q, want %q", i, got, want)
		}
	}
	if got := done[1].Attempt.Metadata.Get("stderr").Text(); got != "oh no\n" {
		t.Errorf("stderr %q", got)
	}
	if got := attribute(t, spans[1], "aglq.exec", "process.exit.code"); got != "3" {
		t.Errorf("exit code %s", got)
	}
}

// A program that is stopped while it has nothing to do does not keep the next task,
// long or short: another does it.
func TestPoolIdleAgentThatHangs(t *testing.T) {
	t.Parallel()
	for name, input := range map[string]string{"short": `"x"`, "longer than a pipe": `"` + strings.Repeat("x", 1<<20) + `"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			dir := t.TempDir()
			p := newPool(t, worker.PoolOptions{ReadTimeout: 100 * time.Millisecond, ExecOptions: worker.ExecOptions{Command: poolLoop(
				`echo $$ >> ` + dir + `/pids; echo "{\"id\":\"$id\",\"reward\":$n}"`)}})
			first := enqueue(t, s, nil, "1")[0]
			start(t, s, p.Handle, worker.Options{})
			if r := finished(t, s, first); r.Status != queue.RolloutSucceeded {
				t.Fatalf("the first task is %s with %s", r.Status, r.Attempt.Metadata)
			}
			pid := pidsIn(t, filepath.Join(dir, "pids"), 1)[0]
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			second := enqueue(t, s, nil, input)[0]
			if r := finished(t, s, second); r.Status != queue.RolloutSucceeded {
				t.Errorf("the second task is %s with %s", r.Status, r.Attempt.Metadata)
			}
			until(t, "the end of the agent", func() bool { return !alive(pid) })
			if pids := pidsIn(t, filepath.Join(dir, "pids"), 2); pids[1] == pid {
				t.Error("the agent that was stopped did the second task")
			}
		})
	}
}

func TestPoolCannotStart(t *testing.T) {
	t.Parallel()
	p := newPool(t, worker.PoolOptions{ExecOptions: worker.ExecOptions{Command: []string{"sh", "-c", "echo broken >&2; exit 7"}}})
	done, _ := runPool(t, p, worker.Options{}, "1", "2")
	for _, r := range done {
		if got := r.Attempt.Metadata.Get("error").Text(); got != "exit status 7: broken" {
			t.Errorf("error %q", got)
		}
	}
	p = newPool(t, worker.PoolOptions{ExecOptions: worker.ExecOptions{Command: []string{"no-such-program"}}})
	done, _ = runPool(t, p, worker.Options{}, "1")
	if got := done[0].Attempt.Metadata.String(); !strings.Contains(got, "no-such-program") {
		t.Errorf("metadata %s", got)
	}
}

// What is no answer is output, and does not upset the agent's pool.
func TestPoolStrayOutput(t *testing.T) {
	t.Parallel()
	p := poolOf(t, `
if [ $n = 0 ]; then echo '{"ready":true}'; fi
echo working; echo trouble >&2; printf '\377\376\n'; echo '{"id":'; echo '{"id":"another","reward":9}'; echo '{"id":7}'; echo 3
head -c 9000000 /dev/zero | tr '\0' '{'; echo
echo "{\"reward\":0.5,\"id\":\"$id\"}"
echo "{\"id\":\"$id\",\"reward\":8}"; echo after`)
	done, spans := runPool(t, p, worker.Options{}, "1", "2")
	for i, r := range done {
		if r.Status != queue.RolloutSucceeded {
			t.Fatalf("task %d: %s", i, r.Attempt.Metadata)
		}
		if got := attribute(t, spans[i], "agentlightning.annotation", "agentlightning.reward.0.value"); got != "0.5" {
			t.Errorf("task %d: reward %s", i, got)
		}
		if n := len(attribute(t, spans[i], "aglq.exec", "aglq.stdout.tail")); n > 10<<10 {
			t.Errorf("task %d: the tail has %d bytes", i, n)
		}
	}
}

func TestPoolOutputIsTheTasksOwn(t *testing.T) {
	t.Parallel()
	p := poolOf(t, `echo "this is $n"; echo "{\"id\":\"$id\"}"`)
	done, spans := runPool(t, p, worker.Options{}, "1", "2")
	for i := range spans {
		want := fmt.Sprintf("this is %d\n{\"id\":\"%s/%s\"}\n", i, done[i].RolloutID, done[i].Attempt.AttemptID)
		if got := rawjson.Value(attribute(t, spans[i], "aglq.exec", "aglq.stdout.tail")).Text(); got != want {
			t.Errorf("output %q, want %q", got, want)
		}
	}
}

func TestPoolAnswerTooLong(t *testing.T) {
	t.Parallel()
	p := poolOf(t, `case $line in *long*) printf '%s' "{\"id\":\"$id\",\"text\":\""; head -c 9000000 /dev/zero | tr '\0' x; echo '"}';; *) echo "{\"id\":\"$id\",\"reward\":$n}";; esac`)
	done, spans := runPool(t, p, worker.Options{}, `"long"`, `"short"`)
	if got := done[0].Attempt.Metadata.Get("error").Text(); got != "the agent's answer is longer than 8 MiB" {
		t.Errorf("error %q", got)
	}
	if got := attribute(t, spans[1], "agentlightning.annotation", "agentlightning.reward.0.value"); got != "1.0" {
		t.Errorf("the second task was number %s of its agent", got)
	}
}

func TestPoolTimeoutEndsTheFamily(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	file := filepath.Join(t.TempDir(), "pids")
	p := poolOf(t, `case $line in *hang*) `+fmt.Sprintf(family, file)+`;; esac; echo "{\"id\":\"$id\",\"reward\":1}"`)
	limit := 0.4
	config := queue.DefaultConfig()
	config.TimeoutSeconds = &limit
	ids := []string{enqueue(t, s, &config, `"hang"`)[0], enqueue(t, s, nil, `"go on"`)[0]}
	start(t, s, p.Handle, worker.Options{})
	if r := finished(t, s, ids[0]); r.Attempt.Status != queue.AttemptTimeout {
		t.Errorf("attempt %s with %s", r.Attempt.Status, r.Attempt.Metadata)
	}
	for _, pid := range pidsIn(t, file, 2) {
		until(t, "the end of a child", func() bool { return !alive(pid) })
	}
	if r := finished(t, s, ids[1]); r.Status != queue.RolloutSucceeded {
		t.Errorf("the next task is %s with %s", r.Status, r.Attempt.Metadata)
	}
}

func TestPoolCancellation(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, `1`)[0]
	dir := t.TempDir()
	script := fmt.Sprintf(`trap 'echo bye > %s/term; exit 0' TERM; echo $$ > %s/pids; while :; do sleep 0.02; done`, dir, dir)
	p := newPool(t, worker.PoolOptions{ExecOptions: worker.ExecOptions{Command: poolLoop(script), Grace: worker.DefaultGrace}}) // time to say bye
	_, stop := start(t, s, p.Handle, worker.Options{HeartbeatInterval: 20 * time.Millisecond})
	pid := pidsIn(t, filepath.Join(dir, "pids"), 1)[0]
	if _, err := s.UpdateRollout(t.Context(), id, queue.RolloutUpdate{Status: queue.Set(queue.RolloutCancelled)}); err != nil {
		t.Fatal(err)
	}
	until(t, "SIGTERM in the agent", func() bool { return exists(filepath.Join(dir, "term")) })
	until(t, "the end of the agent", func() bool { return !alive(pid) })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Idle agents end by the end of their input; what ignores that, and SIGTERM, is
// killed.
func TestPoolClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		script string
		ctx    func() context.Context
	}{
		"well":     {`echo $$ > ` + dir + `/well; echo "{\"id\":\"$id\"}"`, context.Background},
		"stubborn": {`trap '' TERM; sleep 1000 & echo $$ $! > ` + dir + `/stubborn; echo "{\"id\":\"$id\"}"; wait`, context.Background},
		"in a rush": {`sleep 1000 & echo $$ $! > "` + dir + `/in a rush"; echo "{\"id\":\"$id\"}"; wait`, func() context.Context {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := poolOf(t, c.script)
			s := newStore(t)
			id := enqueue(t, s, nil, "1")[0]
			_, stop := start(t, s, p.Handle, worker.Options{})
			finished(t, s, id)
			if err := stop(); err != nil {
				t.Error(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			pids := pidsIn(t, filepath.Join(dir, name), len(strings.Fields(string(text))))
			if !alive(pids[0]) {
				t.Error("the agent did not stay")
			}
			p.Close(c.ctx())
			for _, pid := range pids {
				until(t, "the end of a child", func() bool { return !alive(pid) }) // killed, it may take a moment
			}
			p.Close(context.Background()) // twice is no harm
		})
	}
}

// A message says all that the environment of an exec agent does.
func TestPoolMessage(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine")
	s := newStore(t)
	if _, err := s.AddResources(t.Context(), rawjson.Value(
		`{"main":{"resource_type":"llm","endpoint":"http://llm/v1","model":"m","api_key":"k","sampling_parameters":{}}}`)); err != nil {
		t.Fatal(err)
	}
	config := queue.DefaultConfig()
	config.MaxAttempts, config.RetryCondition = 2, []queue.AttemptStatus{queue.AttemptFailed}
	id := enqueue(t, s, &config, `{"a":"x\ny","id":"mine"}`)[0]
	dir := t.TempDir()
	p := newPool(t, worker.PoolOptions{ExecOptions: worker.ExecOptions{
		Command: poolLoop(`printf '%s\n' "$line" > ` + dir + `/$n; echo "{\"id\":\"$id\",\"error\":\"attempt $n\"}"`),
		TaskEnv: func(*worker.Task) []string { return []string{"OPENAI_API_KEY=another"} },
	}})
	start(t, s, p.Handle, worker.Options{StoreURL: "http://store:4747/", Slots: slots(t)})
	r := finished(t, s, id)
	var messages [2]struct {
		ID            string
		Rollout       map[string]json.RawMessage
		Attempt       map[string]json.RawMessage
		Input         json.RawMessage
		Resources     map[string]json.RawMessage
		PreviousError *string `json:"previous_error"`
		Env           map[string]string
	}
	for i := range messages {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err == nil {
			err = json.Unmarshal(text, &messages[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m := messages[1]
	if m.ID != id+"/"+r.Attempt.AttemptID || string(m.Rollout["rollout_id"]) != `"`+id+`"` || m.Rollout["input"] != nil ||
		string(m.Attempt["attempt_id"]) != `"`+r.Attempt.AttemptID+`"` || string(m.Input) != `{"a":"x\ny","id":"mine"}` || m.Resources["main"] == nil {
		t.Errorf("message %+v", m)
	}
	if messages[0].PreviousError != nil || m.PreviousError == nil || *m.PreviousError != "attempt 0" {
		t.Errorf("previous errors %v and %v", messages[0].PreviousError, m.PreviousError)
	}
	for _, v := range worker.Variables {
		if _, ok := m.Env[v.Name]; !ok && !strings.HasSuffix(v.Name, "_FILE") {
			t.Errorf("the message lacks %s", v.Name)
		}
	}
	want := map[string]string{
		"OPENAI_API_KEY": "another", "OPENAI_BASE_URL": "http://llm/v1", "AGL_PREVIOUS_ERROR": "attempt 0",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://store:4747/v1/traces",
		"OTEL_RESOURCE_ATTRIBUTES":           "service.name=mine,agentlightning.rollout_id=" + id + ",agentlightning.attempt_id=" + r.Attempt.AttemptID,
	}
	for name, value := range want {
		if m.Env[name] != value {
			t.Errorf("%s is %q, want %q", name, m.Env[name], value)
		}
	}
}

// An agent reads its message as one line, whatever is in the input.
func TestPoolMessageIsOneLine(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, "1")[0]
	file := filepath.Join(t.TempDir(), "message")
	p := poolOf(t, `printf '%s\n' "$line" > `+file+`; echo "{\"id\":\"$id\"}"`)
	const input = "{\n \"text\": \"a\u2028b\u2029c\"\r\n}"
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		return p.Handle(ctx, task.With(rawjson.Value(input)))
	}, worker.Options{})
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded {
		t.Fatalf("status %s: %s", r.Status, r.Attempt.Metadata)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Input struct{ Text string } }
	if err := json.Unmarshal(text, &m); err != nil || m.Input.Text != "a\u2028b\u2029c" || strings.ContainsAny(string(text), "\u2028\u2029") {
		t.Errorf("message %q: %v", text, err)
	}
}

// A pool that is closed while tasks run lets them end, and takes no more.
func TestPoolClosesBehindItsTasks(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	id := enqueue(t, s, nil, "1")[0]
	dir := t.TempDir()
	p := poolOf(t, `touch `+dir+`/begun; until [ -e `+dir+`/end ]; do sleep 0.02; done; echo "{\"id\":\"$id\",\"reward\":1}"`)
	start(t, s, p.Handle, worker.Options{})
	until(t, "a task", func() bool { return exists(filepath.Join(dir, "begun")) })
	closed := make(chan struct{})
	go func() {
		p.Close(context.Background())
		close(closed)
	}()
	if err := os.WriteFile(filepath.Join(dir, "end"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded {
		t.Errorf("the task that ran: %s", r.Attempt.Metadata)
	}
	<-closed
	last := enqueue(t, s, nil, "3")[0]
	if r := finished(t, s, last); !strings.Contains(r.Attempt.Metadata.String(), "the pool of programs is closed") {
		t.Errorf("a task after the end: %s", r.Attempt.Metadata)
	}
}

func TestPreviousError(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	config := queue.DefaultConfig()
	config.MaxAttempts, config.RetryCondition = 4, []queue.AttemptStatus{queue.AttemptFailed, queue.AttemptTimeout}
	id := enqueue(t, s, &config, "1")[0]
	file := filepath.Join(t.TempDir(), "told")
	program := shell(`printf '%s\n' "$AGL_PREVIOUS_ERROR" > ` + file + `; grep -o '"previous_error":"[^"]*"' "$AGL_TASK_FILE" >> ` + file)
	var told []string
	start(t, s, func(ctx context.Context, task *worker.Task) (worker.Result, error) {
		before, err := task.PreviousError()
		if err != nil {
			return worker.Result{}, err
		}
		told = append(told, before)
		switch task.Attempt.SequenceID {
		case 1: // ended by another, who gives no reason
			if _, err := s.UpdateAttempt(ctx, id, task.Attempt.AttemptID, queue.AttemptUpdate{Status: queue.Set(queue.AttemptTimeout)}); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return worker.Result{}, context.Cause(ctx)
		case 2:
			return worker.Result{}, fmt.Errorf("no\x00luck")
		}
		return program(ctx, task)
	}, worker.Options{HeartbeatInterval: 20 * time.Millisecond})
	if r := finished(t, s, id); r.Status != queue.RolloutSucceeded {
		t.Fatalf("status %s: %s", r.Status, r.Attempt.Metadata)
	}
	if want := []string{"", "the attempt is timeout", "no\x00luck"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	text, err := os.ReadFile(file)
	if want := "no\uFFFDluck\n\"previous_error\":\"no\\u0000luck\"\n"; err != nil || string(text) != want {
		t.Errorf("the program was told %q: %v", text, err)
	}
}
