package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aglq/aglq/benchmarks"
	"github.com/aglq/aglq/queue/rawjson"
)

const api = "/v1/agl"

// session is a connection whose calls are timed, for one goroutine at a time.
type session struct {
	conn  *benchmarks.Conn
	calls *benchmarks.Calls
}

// connect makes a session that ends with ctx.
func (r *run) connect(ctx context.Context) (*session, error) {
	conn, err := benchmarks.Dial(r.opts.StoreURL)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, calls: benchmarks.NewCalls(r.start)}
	stop := context.AfterFunc(ctx, conn.Close)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = append(r.sessions, s)
	r.stops = append(r.stops, func() { stop(); conn.Close() })
	return s, nil
}

// call sends JSON, times it and wants the status. The answer is valid until the
// next call.
func (s *session) call(name string, want int, method, path string, body []byte) ([]byte, error) {
	began := time.Now()
	_, answer, err := s.conn.Expect(want, method, api+path, body)
	if err == nil {
		s.calls.Note(name, began)
	}
	return answer, err
}

// post is call for POST with an answer that is JSON.
func (s *session) post(name string, want int, path string, body []byte, answer any) error {
	text, err := s.call(name, want, "POST", path, body)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("the answer to POST %s is not what it should be: %w: %.200s", path, err, text)
	}
	return nil
}

// addResources stores what the tasks of a batch run with.
func (s *session) addResources() (id string, err error) {
	var made struct {
		ID string `json:"resources_id"`
	}
	err = s.post("add resources", 201, "/resources",
		[]byte(`{"llm":{"resource_type":"llm","endpoint":"http://localhost:8000/v1","model":"benchmark","api_key":null,"sampling_parameters":{"temperature":0.7}}}`), &made)
	return made.ID, err
}

// enqueue adds the tasks n and on and returns their ids, in order.
func (s *session) enqueue(resources string, n, count int) ([]string, error) {
	body := []byte(`{"rollouts":[`)
	for i := range count {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"input":`...)
		body = rawjson.AppendString(body, taskName(n+i))
		body = append(body, `,"mode":"train","resources_id":`...)
		body = rawjson.AppendString(body, resources)
		body = append(body, `,"config":null,"metadata":null}`...)
	}
	var made []struct {
		ID string `json:"rollout_id"`
	}
	if err := s.post("enqueue", 201, "/queues/rollouts/enqueue", append(body, `]}`...), &made); err != nil {
		return nil, err
	}
	if len(made) != count {
		return nil, fmt.Errorf("an enqueue of %d tasks answered with %d", count, len(made))
	}
	ids := make([]string, count)
	for i := range made {
		ids[i] = made[i].ID
	}
	return ids, nil
}

// ended is a rollout that the algorithm asked about.
type ended struct {
	ID     string `json:"rollout_id"`
	Status string `json:"status"`
}

func (e ended) final() bool {
	return e.Status == "succeeded" || e.Status == "failed" || e.Status == "cancelled"
}

// wait returns those that have finished, after as many seconds at most.
func (s *session) wait(ids []string, seconds float64) (done []ended, err error) {
	body := append([]byte(`{"rollout_ids":`), idList(ids)...)
	body = append(body, `,"timeout":`...)
	body = append(rawjson.AppendFloat(body, seconds), '}')
	name := "wait"
	if seconds > 0 {
		name = waitingCall
	}
	return done, s.post(name, 200, "/waits/rollouts", body, &done)
}

// finished asks for rollouts by their ids and keeps those that have finished.
func (s *session) finished(ids []string) ([]ended, error) {
	body := append([]byte(`{"limit":-1,"rollout_id_in":`), idList(ids)...)
	var page struct {
		Items []ended `json:"items"`
	}
	if err := s.post("query rollouts", 200, "/rollouts/search", append(body, '}'), &page); err != nil {
		return nil, err
	}
	var done []ended
	for _, e := range page.Items {
		if e.final() {
			done = append(done, e)
		}
	}
	return done, nil
}

// rollout asks for one.
func (s *session) rollout(id string) (e ended, err error) {
	text, err := s.call("get rollout", 200, "GET", "/rollouts/"+id, nil)
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	return e, err
}

func idList(ids []string) []byte {
	list := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendQuote(list, id)
	}
	return append(list, ']')
}
