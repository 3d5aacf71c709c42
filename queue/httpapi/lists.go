package httpapi

import (
	"slices"
	"strings"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// listed is what a list request asks for, not yet checked against the list.
type listed struct {
	sortBy        *string
	descending    bool
	limit, offset int64
}

var orders = []string{"asc", "desc"}

// source is the object with a list's parameters: the query string of a GET, the
// body of a search.
type source struct {
	v      checker
	root   *loc
	object rawjson.Value
}

// parameters reads the source of a list request.
func (c *call) parameters() (*source, error) {
	s := &source{root: &inQuery}
	if c.r.Method == "GET" {
		s.object = queryObject(c.r.URL.RawQuery)
		return s, nil
	}
	s.root = &inBody
	var err error
	if s.object, err = c.json(&s.v); err != nil {
		return nil, err
	}
	if !s.v.body(s.object) {
		return nil, s.v.err()
	}
	return s, nil
}

// member looks a parameter up; at is good until the next call.
func (s *source) member(name string) (at loc, x rawjson.Value) {
	return s.root.at(name), s.object.Get(name)
}

func (s *source) optText(name string) *string {
	at, x := s.member(name)
	return s.v.optText(&at, x)
}

func (s *source) optTexts(name string) []string {
	at, x := s.member(name)
	if x.IsNull() {
		return nil
	}
	return s.v.texts(&at, x)
}

func statuses[T ~string](s *source, name string, allowed []T) []T {
	at, x := s.member(name)
	return literals(&s.v, &at, x, allowed)
}

func (s *source) logic() queue.Logic {
	at, x := s.member("filter_logic")
	if x != nil && literal(&s.v, &at, x, []string{"and", "or"}) == "or" {
		return queue.Or
	}
	return queue.And
}

// paging reads the parameters that all lists have. sortBy is the order where
// the request names none; null in a search is no order.
func (s *source) paging(sortBy string) listed {
	l := listed{limit: -1}
	if at, x := s.member("limit"); x != nil {
		l.limit = s.v.int(&at, x)
	}
	if at, x := s.member("offset"); x != nil {
		l.offset = s.v.int(&at, x)
	}
	if at, x := s.member("sort_by"); x != nil {
		l.sortBy = s.v.optText(&at, x)
	} else if sortBy != "" {
		l.sortBy = &sortBy
	}
	if at, x := s.member("sort_order"); x != nil {
		l.descending = literal(&s.v, &at, x, orders) == "desc"
	}
	return l
}

// check finishes a list request: first its shape, then its values.
func (s *source) check(l listed, sorts []string) (queue.Paging, error) {
	p := queue.Paging{Descending: l.descending, Limit: int(l.limit), Offset: int(l.offset)}
	if err := s.v.err(); err != nil {
		return p, err
	}
	if l.sortBy != nil {
		if !slices.Contains(sorts, *l.sortBy) {
			return p, queue.Errorf(queue.Invalid, "Invalid sort_by: %s, allowed fields are: %s", *l.sortBy, strings.Join(sorts, ", "))
		}
		p.SortBy = *l.sortBy
	}
	if l.limit != -1 && l.limit <= 0 {
		return p, queue.Errorf(queue.Invalid, "Limit must be greater than 0 or -1 for no limit")
	}
	if l.offset < 0 {
		return p, queue.Errorf(queue.Invalid, "Offset must be greater than or equal to 0")
	}
	return p, nil
}

func (c *call) listRollouts() error {
	s, err := c.parameters()
	if err != nil {
		return err
	}
	q := queue.RolloutQuery{
		Statuses:   statuses(s, "status_in", queue.RolloutStatuses),
		IDs:        s.optTexts("rollout_id_in"),
		IDContains: s.optText("rollout_id_contains"),
		Modes:      statuses(s, "mode_in", queue.Modes),
		Logic:      s.logic(),
	}
	if q.Paging, err = s.check(s.paging(""), queue.RolloutSorts); err != nil {
		return err
	}
	found, err := c.server.store.Rollouts(c.ctx(), q)
	if err == nil {
		page(c, found)
	}
	return err
}

func (c *call) listAttempts() error {
	s, err := c.parameters()
	if err != nil {
		return err
	}
	q := queue.AttemptQuery{RolloutID: c.ids[0]}
	if q.Paging, err = s.check(s.paging("sequence_id"), queue.AttemptSorts); err != nil {
		return err
	}
	found, err := c.server.store.Attempts(c.ctx(), q)
	if err == nil {
		page(c, found)
	}
	return err
}

func (c *call) listWorkers() error {
	s, err := c.parameters()
	if err != nil {
		return err
	}
	q := queue.WorkerQuery{
		Statuses:   statuses(s, "status_in", queue.WorkerStatuses),
		IDContains: s.optText("worker_id_contains"),
		Logic:      s.logic(),
	}
	if q.Paging, err = s.check(s.paging(""), queue.WorkerSorts); err != nil {
		return err
	}
	found, err := c.server.store.Workers(c.ctx(), q)
	if err == nil {
		page(c, found)
	}
	return err
}

func (c *call) listResources() error {
	s, err := c.parameters()
	if err != nil {
		return err
	}
	q := queue.ResourcesQuery{ID: s.optText("resources_id"), IDContains: s.optText("resources_id_contains")}
	if q.Paging, err = s.check(s.paging(""), queue.ResourcesSorts); err != nil {
		return err
	}
	found, err := c.server.store.QueryResources(c.ctx(), q)
	if err == nil {
		page(c, found)
	}
	return err
}

func (c *call) listSpans() error {
	s, err := c.parameters()
	if err != nil {
		return err
	}
	match := func(name string) queue.TextMatch {
		return queue.TextMatch{Equals: s.optText(name), Contains: s.optText(name + "_contains")}
	}
	q := queue.SpanQuery{
		RolloutID: s.v.needText(s.root, s.object, "rollout_id"),
		AttemptID: s.optText("attempt_id"),
		TraceID:   match("trace_id"),
		SpanID:    match("span_id"),
		ParentID:  match("parent_id"),
		Name:      match("name"),
		Logic:     s.logic(),
	}
	if q.Paging, err = s.check(s.paging("sequence_id"), queue.SpanSorts); err != nil {
		return err
	}
	found, err := c.server.store.Spans(c.ctx(), q)
	if err == nil {
		page(c, found)
	}
	return err
}
