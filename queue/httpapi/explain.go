package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/aglq/aglq/queue"
)

// explain is for people and asked for seldom, so its answer is written by
// reflection.
func (c *call) explain() error {
	x, err := c.server.store.Explain(c.ctx(), c.ids[0])
	if err != nil {
		return err
	}
	body, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, jsonType, body)
}

// explanation is the schema of its answer.
func explanation() schema {
	attempt := object("rollout_id", text, "attempt_id", text, "sequence_id", integer, "start_time", number,
		"end_time", orNull(number), "status", words(queue.AttemptStatuses), "worker_id", orNull(text),
		"last_heartbeat_time", orNull(number), "metadata", orNull(anyDict), "lost", boolean, "spans", orNull(integer),
		"error", orNull(object("type", text, "message", text, "source", text)), "text", text)
	return object("rollout_id", text, "status", words(queue.RolloutStatuses), "time", number, "start_time", number,
		"end_time", orNull(number), "config", ref("RolloutConfig"), "summary", text,
		"reasons", array(object("code", text, "text", text)),
		"queue", orNull(object("ahead", integer, "ahead_over", boolean)),
		"holder", orNull(object("rollout_id", text, "attempt_id", text, "worker_id", orNull(text), "since", number, "last_sign", number)),
		"workers", object("known", integer, "alive", integer, "busy", integer),
		"attempts", array(attempt),
		"next", array(object("event", text, "at", orNull(number), "text", text)),
		"attempts_left", integer)
}
