package httpapi

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func (c *call) enqueue() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	reqs := []queue.Request{}
	if v.body(body) {
		at := inBody.at("rollouts")
		switch list := body.Get("rollouts"); {
		case list == nil:
			v.missing(&at, body)
		case v.list(&at, list):
			for x := range list.Elements() {
				here := at.item(len(reqs))
				reqs = append(reqs, v.request(&here, x))
			}
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	stored, err := c.server.store.Enqueue(c.ctx(), reqs)
	if err == nil {
		_ = many(c, http.StatusCreated, stored)
	}
	return err
}

// request reads an EnqueueRolloutRequest.
func (v *checker) request(at *loc, x rawjson.Value) (req queue.Request) {
	if !v.object(at, x) {
		return req
	}
	here := at.at("input")
	if input := x.Get("input"); input != nil {
		req.Input = v.payload(input)
	} else {
		v.missing(&here, x)
	}
	here = at.at("mode")
	req.Mode = v.mode(&here, x.Get("mode"))
	here = at.at("resources_id")
	req.ResourcesID = v.optText(&here, x.Get("resources_id"))
	here = at.at("config")
	if config := x.Get("config"); !config.IsNull() {
		parsed := v.config(&here, config)
		req.Config = &parsed
	}
	here = at.at("metadata")
	req.Metadata = v.optDict(&here, x.Get("metadata"))
	return req
}

// mode reads a mode, "" for null.
func (v *checker) mode(at *loc, x rawjson.Value) queue.Mode {
	if x.IsNull() {
		return ""
	}
	return literal(v, at, x, queue.Modes)
}

func (v *checker) config(at *loc, x rawjson.Value) queue.Config {
	config := queue.DefaultConfig()
	if !v.object(at, x) {
		return config
	}
	here := at.at("timeout_seconds")
	config.TimeoutSeconds = v.optFloat(&here, x.Get("timeout_seconds"))
	here = at.at("unresponsive_seconds")
	config.UnresponsiveSeconds = v.optFloat(&here, x.Get("unresponsive_seconds"))
	here = at.at("max_attempts")
	if n := x.Get("max_attempts"); n != nil {
		before := len(v.problems)
		config.MaxAttempts = v.int(&here, n)
		if config.MaxAttempts < 1 && len(v.problems) == before {
			v.fail(&here, "greater_than_equal", "Input should be greater than or equal to 1", n, `{"ge":1}`)
		}
	}
	here = at.at("retry_condition")
	if list := x.Get("retry_condition"); list != nil && v.list(&here, list) {
		config.RetryCondition = literals(v, &here, list, queue.AttemptStatuses)
	}
	return config
}

// seconds reads a duration; an infinite one is the longest there is, NaN is 0.
func seconds(f float64) time.Duration {
	switch {
	case math.IsNaN(f) || f <= 0:
		return 0
	case f >= math.MaxInt64/float64(time.Second):
		return math.MaxInt64
	}
	return time.Duration(f * float64(time.Second))
}

func (c *call) dequeue() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	claim := queue.Claim{Limit: 1}
	if !body.IsNull() && v.object(&inBody, body) {
		at := inBody.at("limit")
		if n := body.Get("limit"); n != nil {
			claim.Limit = int(v.int(&at, n))
		}
		at = inBody.at("worker_id")
		claim.WorkerID = v.optText(&at, body.Get("worker_id"))
		at = inBody.at("wait_seconds")
		if wait := body.Get("wait_seconds"); !wait.IsNull() {
			claim.Wait = min(seconds(v.float(&at, wait)), MaxWait)
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	return c.claim(claim)
}

// claim answers a claim, and gives it back if the answer goes nowhere.
func (c *call) claim(claim queue.Claim) error {
	ctx, done := c.waitCtx(claim.Wait)
	defer done()
	claimed, err := c.server.store.Claim(ctx, claim)
	if err != nil && !c.ended(err) {
		return err
	}
	if c.r.Context().Err() == nil {
		c.flushes = len(claimed) > 0
		err = many(c, http.StatusOK, claimed)
		if err == nil && c.flushes {
			// Only now is it known whether the connection took the answer.
			err = http.NewResponseController(&c.w).Flush()
		}
		if err == nil || c.r.Context().Err() == nil {
			return nil
		}
	}
	c.gone()
	if len(claimed) == 0 || queue.IdempotencyKey(ctx) != "" {
		return nil
	}
	refs := make([]queue.AttemptRef, len(claimed))
	for i := range claimed {
		refs[i] = queue.AttemptRef{RolloutID: claimed[i].RolloutID, AttemptID: claimed[i].Attempt.AttemptID}
	}
	if err := c.server.store.Unclaim(context.WithoutCancel(ctx), refs); err != nil {
		c.server.log.Warn("claims of a client that went away could not be given back", "error", err)
	}
	return nil
}

func (c *call) startRollout() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	var req queue.Request
	var worker *string
	if v.body(body) {
		req = v.request(&inBody, body)
		at := inBody.at("worker_id")
		worker = v.optText(&at, body.Get("worker_id"))
	}
	if err := v.err(); err != nil {
		return err
	}
	started, err := c.server.store.Start(c.ctx(), req, worker)
	if err == nil {
		one(c, http.StatusCreated, &started)
	}
	return err
}

func (c *call) rollout() error {
	found, err := c.server.store.Rollout(c.ctx(), c.ids[0])
	if err == nil {
		one(c, http.StatusOK, found)
	}
	return err
}

// errNull is the answer to a null where the reference takes none.
func errNull(field string) error {
	return queue.Errorf(queue.Invalid, "%s is invalid; it cannot be a null value.", field)
}

// firstNull names the first of fields that body has as null.
func firstNull(body rawjson.Value, fields ...string) error {
	for _, name := range fields {
		if x := body.Get(name); x != nil && x.IsNull() {
			return errNull(name)
		}
	}
	return nil
}

func (c *call) updateRollout() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	var u queue.RolloutUpdate
	if v.body(body) {
		u = v.rolloutUpdate(body)
	}
	if err := v.err(); err != nil {
		return err
	}
	if err := firstNull(body, "status", "config"); err != nil {
		return err
	}
	updated, err := c.server.store.UpdateRollout(c.ctx(), c.ids[0], u)
	if err == nil {
		one(c, http.StatusOK, &updated)
	}
	return err
}

// rolloutUpdate reads what is set; nulls where none are allowed are refused
// later.
func (v *checker) rolloutUpdate(body rawjson.Value) (u queue.RolloutUpdate) {
	if x := body.Get("input"); x != nil {
		u.Input = queue.Set(v.payload(x))
	}
	if x := body.Get("mode"); x != nil {
		at := inBody.at("mode")
		u.Mode = queue.Set(v.mode(&at, x))
	}
	if x := body.Get("resources_id"); x != nil {
		at := inBody.at("resources_id")
		u.ResourcesID = queue.Set(v.optText(&at, x))
	}
	if x := body.Get("status"); !x.IsNull() {
		at := inBody.at("status")
		u.Status = queue.Set(literal(v, &at, x, queue.RolloutStatuses))
	}
	if x := body.Get("config"); !x.IsNull() {
		at := inBody.at("config")
		u.Config = queue.Set(v.config(&at, x))
	}
	if x := body.Get("metadata"); x != nil {
		at := inBody.at("metadata")
		u.Metadata = queue.Set(v.optDict(&at, x))
	}
	if x := body.Get("fence"); !x.IsNull() {
		at := inBody.at("fence")
		u.Fence = v.bool(&at, x)
	}
	return u
}

func (c *call) wait() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	var ids []string
	timeout := time.Duration(-1)
	if v.body(body) {
		at := inBody.at("rollout_ids")
		if list := body.Get("rollout_ids"); list != nil {
			ids = v.texts(&at, list)
		} else {
			v.missing(&at, body)
		}
		at = inBody.at("timeout")
		given := body.Get("timeout")
		if given.IsNull() {
			at = inBody.at("wait_seconds")
			given = body.Get("wait_seconds")
		}
		if !given.IsNull() {
			timeout = seconds(v.float(&at, given))
		}
		if timeout == math.MaxInt64 {
			timeout = -1
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	ctx, done := c.waitCtx(timeout)
	defer done()
	finished, err := c.server.store.Wait(ctx, ids, timeout)
	if err != nil && !c.ended(err) {
		return err
	}
	_ = many(c, http.StatusOK, finished)
	return nil
}

func (c *call) startAttempt() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	var worker *string
	if !body.IsNull() && v.object(&inBody, body) {
		at := inBody.at("worker_id")
		worker = v.optText(&at, body.Get("worker_id"))
	}
	if err := v.err(); err != nil {
		return err
	}
	started, err := c.server.store.StartAttempt(c.ctx(), c.ids[0], worker)
	if err == nil {
		one(c, http.StatusCreated, &started)
	}
	return err
}

func (c *call) latestAttempt() error {
	found, err := c.server.store.LatestAttempt(c.ctx(), c.ids[0])
	if err == nil {
		one(c, http.StatusOK, found)
	}
	return err
}

func (c *call) updateAttempt() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	var u queue.AttemptUpdate
	if v.body(body) {
		u = v.attemptUpdate(body)
	}
	if err := v.err(); err != nil {
		return err
	}
	if err := firstNull(body, "status", "worker_id", "last_heartbeat_time", "metadata"); err != nil {
		return err
	}
	updated, err := c.server.store.UpdateAttempt(c.ctx(), c.ids[0], c.ids[1], u)
	if err == nil {
		one(c, http.StatusOK, &updated)
	}
	return err
}

func (v *checker) attemptUpdate(body rawjson.Value) (u queue.AttemptUpdate) {
	if x := body.Get("status"); !x.IsNull() {
		at := inBody.at("status")
		u.Status = queue.Set(literal(v, &at, x, queue.AttemptStatuses))
	}
	if x := body.Get("worker_id"); !x.IsNull() {
		at := inBody.at("worker_id")
		u.WorkerID = queue.Set(v.text(&at, x))
	}
	at := inBody.at("last_heartbeat_time")
	if t := v.optFloat(&at, body.Get("last_heartbeat_time")); t != nil {
		u.LastHeartbeatTime = queue.Set(*t)
	}
	if x := body.Get("metadata"); !x.IsNull() {
		at := inBody.at("metadata")
		u.Metadata = queue.Set(v.dict(&at, x))
	}
	return u
}
