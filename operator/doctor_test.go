package operator

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aglq/aglq/collections/mongo"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
	"github.com/aglq/aglq/queue/where"
)

// patient is a store whose answers beside its data the tests make up.
type patient struct {
	*clinic
	ahead      time.Duration
	metrics    string // "" is none
	onDatabase bool   // what it stores
}

func (p patient) Statistics(ctx context.Context) (queue.Statistics, error) {
	st, err := p.clinic.Statistics(ctx)
	if p.onDatabase {
		st.Memory = nil
	}
	return st, err
}

func (p patient) Clock(context.Context) (ahead, within time.Duration, err error) {
	return p.ahead, 500 * time.Millisecond, nil
}

func (p patient) Metrics(context.Context) ([]byte, error) {
	if p.metrics == "" {
		return nil, queue.Errorf(queue.NotFound, "Not Found")
	}
	return []byte(p.metrics), nil
}

// wrong lists what the doctor finds bad, a line each.
func wrong(t *testing.T, found []Finding) string {
	t.Helper()
	var lines []string
	for _, f := range found {
		if f.Bad() {
			if f.Remedy == "" {
				t.Errorf("%s: %s has no remedy", f.Check, f.Text)
			}
			lines = append(lines, fmt.Sprintf("%s %s: %s", f.Severity, f.Check, f.Text))
		}
	}
	return strings.Join(lines, "\n")
}

func TestDoctor(t *testing.T) {
	const llm = "openai.chat.completion"
	tests := []struct {
		name    string
		options store.Options
		make    func(p *patient)
		want    []string // each finding contains one, in order
	}{
		{"nothing there", store.Options{}, func(*patient) {}, nil},
		{"all is well", store.Options{}, func(p *patient) {
			p.metrics = "# HELP x\nprocess_max_fds 65535\nprocess_open_fds 100\n"
			p.enqueue(2)
			p.beat("w", `{"timestamp":"`+p.now.Add(5*time.Hour).UTC().Format("2006-01-02T15:04:05")+`"}`) // another zone
			r := p.claim("w")
			p.span(r, llm, `"gen_ai.response.id":"x","response_token_ids":[1,2]`)
			p.end(r, queue.AttemptSucceeded, "")
		}, nil},
		{"clock of the store", store.Options{}, func(p *patient) { p.ahead = -5 * time.Second },
			[]string{"warning clock of the store: the store's clock is 5.0s behind this machine's"}},
		{"few files", store.Options{}, func(p *patient) { p.metrics = "process_max_fds 1024\nprocess_open_fds 10\n" },
			[]string{"warning file limit of the store: 10 of 1024 files"}},
		{"many open files", store.Options{}, func(p *patient) { p.metrics = "process_max_fds 65535\nprocess_open_fds 6e4\n" },
			[]string{"warning file limit of the store: 60000 of 65535"}},
		{"no worker", store.Options{}, func(p *patient) { p.enqueue(1) },
			[]string{"problem workers: none has ever asked for work, and 1 rollout waits for one"}},
		{"old queue", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.pass(11 * time.Minute)
			p.beat("w", "{}")
		}, []string{"warning queue age: 1 queued, the oldest was enqueued 11m00s ago: ro-"}},
		{"a dead worker that nobody misses", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.claim("w")
			p.pass(10 * time.Minute)
			p.beat("v", "{}")
		}, []string{"problem workers: 1 worker holds a rollout and has ended or been silent for more than 90 s: w",
			"problem held rollouts: 1 rollout is held by a worker that is silent or has ended, and no limit ends it: ro-"}},
		{"a dead worker under a lease", store.Options{WorkerTTL: time.Hour}, func(p *patient) {
			p.enqueue(1)
			p.claim("w")
			p.pass(10 * time.Minute)
			p.beat("v", "{}")
		}, []string{"problem workers: 1 worker holds a rollout and has ended or been silent for more than 90 s: w"}},
		{"dead by the lease", store.Options{WorkerTTL: 10 * time.Second}, func(p *patient) {
			p.enqueue(1)
			p.beat("idle", "{}")
			p.pass(11 * time.Second)
		}, []string{"problem workers: none of 1 is alive, and 1 rollout waits for one"}},
		{"ended", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.beat("w", `{"stopped":true}`)
		}, []string{"problem workers: none of 1 is alive, and 1 rollout waits for one"}},
		{"ended with a rollout in hand", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.claim("w")
			p.pass(2 * time.Minute)
			p.beat("w", `{"stopped":true}`)
			p.beat("v", "{}")
		}, []string{"problem workers: 1 worker holds a rollout and has ended", "problem held rollouts: 1 rollout is held by"}},
		{"held by nobody", store.Options{}, func(p *patient) {
			p.enqueue(1)
			r := p.claim("w")
			p.beat("w", "{}")
			p.end(r, queue.AttemptFailed, "")
			_, err := p.UpdateRollout(t.Context(), r.RolloutID, queue.RolloutUpdate{Status: queue.Set(queue.RolloutRunning)})
			p.must(err)
			p.pass(2 * time.Minute)
			p.beat("w", "{}")
		}, []string{"problem held rollouts: 1 rollout is shown at work, but nobody holds it: ro-"}},
		{"no heartbeats", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.claim("mute")
		}, []string{"warning workers: 1 worker has asked for work and never sent a heartbeat: mute"}},
		{"clock of a worker", store.Options{}, func(p *patient) {
			p.beat("w", `{"timestamp":"`+p.now.Add(-3*time.Hour-time.Minute).UTC().Format("2006-01-02T15:04:05")+`"}`)
		}, []string{"warning clocks of the workers: w is 1m0"}},
		{"no spans", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.beat("w", "{}")
			p.end(p.claim("w"), queue.AttemptSucceeded, "")
		}, []string{"warning spans: 1 of the 1 newest finished rollout has no spans"}},
		{"no token ids", store.Options{}, func(p *patient) {
			p.enqueue(1)
			p.beat("w", "{}")
			r := p.claim("w")
			p.span(r, llm, `"response_token_ids":[1]`)
			p.span(r, llm, `"response_token_ids":[],"prompt_token_ids":[1]`)
			p.end(r, queue.AttemptSucceeded, "")
		}, []string{"warning spans: 1 of 2 calls of language models came without token ids"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &patient{clinic: open(t, tt.options)}
			tt.make(p)
			d := Doctor{Store: p, MaxQueueAge: DefaultMaxQueueAge, Now: p.clock}
			got := wrong(t, d.Examine(t.Context()))
			lines := strings.Split(got, "\n")
			if got == "" {
				lines = nil
			}
			if len(lines) != len(tt.want) {
				t.Fatalf("it found\n%s\nwant %d findings", got, len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("it found\n%s\nwant  %s…", lines[i], want)
				}
			}
		})
	}
}

// TestDoctorSumsUp has one finding, and one remedy, for many rollouts with the
// same fault.
func TestDoctorSumsUp(t *testing.T) {
	const dead = mostExplained + 5
	p := &patient{clinic: open(t, store.Options{})}
	p.enqueue(dead)
	for i := range dead {
		p.claim(fmt.Sprintf("it's w%d", i%3))
	}
	p.pass(10 * time.Minute)
	p.beat("v", "{}")
	held := func() Finding {
		t.Helper()
		d := Doctor{Store: p, MaxQueueAge: DefaultMaxQueueAge, Now: p.clock}
		var found []Finding
		for _, f := range d.Examine(t.Context()) {
			if f.Check == "held rollouts" {
				found = append(found, f)
			}
		}
		if len(found) != 1 {
			t.Fatalf("found %+v", found)
		}
		return found[0]
	}
	const command = `aglq requeue --force --status preparing,running --where 'worker_id in ["it'\''s w0", "it'\''s w1", "it'\''s w2"]'; `
	f := held()
	if !strings.HasPrefix(f.Text, "20 or more rollouts are held by") || strings.Count(f.Text, "ro-") != 5 || !strings.HasPrefix(f.Remedy, command) {
		t.Errorf("found %+v", f)
	}
	if !strings.Contains(f.Remedy, "do not restart it") {
		t.Errorf("a store in memory: %s", f.Remedy)
	}
	p.onDatabase = true
	if f := held(); !strings.HasSuffix(f.Remedy, "or start the store with --worker-ttl 30") {
		t.Errorf("a store on a database: %s", f.Remedy)
	}
}

// TestRemediesCompile has requeue take the expressions that the doctor prescribes.
func TestRemediesCompile(t *testing.T) {
	worker := "w\"1"
	s := stuck{unheld: []string{"ro-1"}}
	for _, w := range []*string{&worker, nil} {
		s.add(queue.Explanation{RolloutID: "ro-2", Holder: &queue.Holder{WorkerID: w},
			Reasons: []queue.Reason{{Code: queue.ReasonSilent}, {Code: queue.ReasonUnwatched}}})
	}
	found := s.findings(&Doctor{})
	if len(found) != 2 {
		t.Fatalf("found %+v", found)
	}
	for i, f := range found {
		_, rest, _ := strings.Cut(f.Remedy, "--where '")
		expression, _, _ := strings.Cut(rest, "'")
		filter, err := where.Compile(expression)
		if err != nil {
			t.Fatalf("%s: %v", f.Remedy, err)
		}
		ended := &queue.AttemptedRollout{Attempt: &queue.Attempt{Status: queue.AttemptFailed, WorkerID: new(string)}}
		orphaned := &queue.AttemptedRollout{Attempt: &queue.Attempt{Status: queue.AttemptRunning, WorkerID: &worker}}
		nobodys := &queue.AttemptedRollout{Attempt: &queue.Attempt{Status: queue.AttemptRunning}}
		for r, want := range map[*queue.AttemptedRollout]bool{ended: i == 0, {}: true, orphaned: i == 1, nobodys: i == 1} {
			if got, err := filter.Match(r, nil); err != nil || got != want {
				t.Errorf("%s: %t of attempt %+v, %v", expression, got, r.Attempt, err)
			}
		}
	}
}

// TestDoctorAsksARealServer checks what a server says beside its data.
func TestDoctorAsksARealServer(t *testing.T) {
	c := open(t, store.Options{})
	d := Doctor{Store: c, MaxQueueAge: DefaultMaxQueueAge}
	found := d.Examine(t.Context())
	if got := wrong(t, found); got != "" || len(found) != 9 {
		t.Errorf("%d findings, of them bad:\n%s", len(found), got)
	}
	if f := found[2]; f.Check != "file limit of the store" || f.Severity != Skipped {
		t.Errorf("without metrics the file limit is %+v", f)
	}
}

func TestDoctorWithoutAStore(t *testing.T) {
	c := open(t, store.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as good as no answer
	d := Doctor{Store: c}
	if found := d.Examine(ctx); len(found) != 1 || found[0].Severity != Problem || found[0].Check != "store" {
		t.Errorf("found %+v", found)
	}
}

func TestExamineDatabase(t *testing.T) {
	well := mongo.Server{Version: "6.0.5", Set: "rs0", Initiated: true, Primary: true, Connections: 5, Available: 50_000,
		Members: []mongo.Member{{Name: "a:1", State: "PRIMARY", Health: 1}, {Name: "b:1", State: "SECONDARY", Health: 1}}}
	change := func(f func(s *mongo.Server)) mongo.Server {
		s := well
		f(&s)
		return s
	}
	tests := []struct {
		name string
		s    mongo.Server
		want string // of the only finding; "" for none
	}{
		{"well", well, ""},
		{"sharded", change(func(s *mongo.Server) { s.Set, s.Sharded, s.Members = "", true, nil }), ""},
		{"nothing to be seen", change(func(s *mongo.Server) { s.Version, s.Available, s.Members = "", 0, nil }), ""},
		{"too old", change(func(s *mongo.Server) { s.Version = "4.4.1" }), "problem database: MongoDB 4.4.1 is too old"},
		{"no set", change(func(s *mongo.Server) { s.Set = "" }), "problem database: the server is not a member of a replica set"},
		{"not initiated", change(func(s *mongo.Server) { s.Set, s.Initiated = "?", false }), "problem database: the replica set has not been"},
		{"no primary", change(func(s *mongo.Server) { s.Primary = false }), "problem database: replica set rs0 has no primary"},
		{"a member is down", change(func(s *mongo.Server) {
			s.Members = []mongo.Member{{Name: "c:1", State: "(not reachable/healthy)"}}
		}), "warning database: member c:1 is (not reachable"},
		{"an arbiter", change(func(s *mongo.Server) { s.Members = []mongo.Member{{State: "ARBITER", Health: 1}} }), ""},
		{"clock", change(func(s *mongo.Server) { s.Ahead = 3 * time.Second }), "warning database: the database's clock is 3.0s ahead of"},
		{"clock, not sure", change(func(s *mongo.Server) { s.Ahead, s.Within = 3*time.Second, 2*time.Second }), ""},
		{"few connections", change(func(s *mongo.Server) { s.Available = 9 }), "warning database: 5 connections are open, 9 more"},
		{"profiling", change(func(s *mongo.Server) { s.Profiling = 2 }), "warning database: profiling level 2"},
		{"file limit", change(func(s *mongo.Server) {
			s.Warnings = []string{"Access control is not enabled", "Soft rlimits for open file descriptors too low"}
		}), "warning database: mongod says: Soft rlimits"},
	}
	for _, tt := range tests {
		got := wrong(t, ExamineDatabase(tt.s))
		if strings.Contains(got, "\n") || (tt.want == "") != (got == "") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: found %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHasTokenIDs(t *testing.T) {
	for attributes, want := range map[string]bool{
		`{}`:                          false,
		`{"prompt_token_ids":[1]}`:    false,
		`{"response_token_ids":[1]}`:  true,
		`{"response_token_ids":[]}`:   false,
		`{"response_token_ids":"[]"}`: false,
		`{"llm.hosted_vllm.response_token_ids":"[[1, 2]]"}`:                                         true,
		`{"llm.hosted_vllm.choices":"[{'token_ids': [1]}]"}`:                                        true,
		`{"llm.hosted_vllm.choices":"[{'text': 'x'}]"}`:                                             false,
		`{"agentlightning.operation.output.choices.0.token_ids":[3]}`:                               true,
		`{"agentlightning.operation.output.choices.0.provider_specific_fields.token_ids":"[1, 2]"}`: true,
	} {
		if got := hasTokenIDs(&queue.Span{Attributes: rawjson.Value(attributes)}); got != want {
			t.Errorf("%s has token ids: %t", attributes, got)
		}
	}
}
