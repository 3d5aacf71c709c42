package httpapi

import (
	"net/http"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

func (c *call) worker() error {
	found, err := c.server.store.Worker(c.ctx(), c.ids[0])
	if err == nil {
		one(c, http.StatusOK, found)
	}
	return err
}

func (c *call) heartbeat() error {
	var v checker
	body, err := c.json(&v)
	if err != nil {
		return err
	}
	beat := queue.Heartbeat{WorkerID: c.ids[0]}
	if !body.IsNull() && v.object(&inBody, body) {
		if x := body.Get("heartbeat_stats"); !x.IsNull() {
			at := inBody.at("heartbeat_stats")
			beat.Stats = v.dict(&at, x)
		}
		at := inBody.at("attempts")
		if list := body.Get("attempts"); !list.IsNull() && v.list(&at, list) {
			beat.Held = v.refs(&at, list)
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	if err := firstNull(body, "heartbeat_stats"); err != nil {
		return err
	}
	told, err := c.server.store.Heartbeat(c.ctx(), beat)
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(dst []byte) []byte {
		dst = told.Worker.AppendOpen(dst)
		if beat.Held != nil {
			dst = append(dst, `,"attempts":[`...)
			for i := range told.Held {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = appendHeld(dst, &told.Held[i])
			}
			dst = append(dst, ']')
		}
		return append(dst, '}')
	})
}

func (v *checker) refs(at *loc, list rawjson.Value) []queue.AttemptRef {
	refs := []queue.AttemptRef{}
	for x := range list.Elements() {
		here := at.item(len(refs))
		var ref queue.AttemptRef
		if v.object(&here, x) {
			ref.RolloutID = v.needText(&here, x, "rollout_id")
			ref.AttemptID = v.needText(&here, x, "attempt_id")
		}
		refs = append(refs, ref)
	}
	return refs
}

func appendHeld(dst []byte, h *queue.HeldAttempt) []byte {
	dst = append(dst, `{"rollout_id":`...)
	dst = rawjson.AppendString(dst, h.RolloutID)
	dst = append(dst, `,"attempt_id":`...)
	dst = rawjson.AppendString(dst, h.AttemptID)
	dst = append(dst, `,"held":`...)
	if h.Held {
		dst = append(dst, "true"...)
	} else {
		dst = append(dst, "false"...)
	}
	dst = append(dst, `,"rollout_status":`...)
	dst = rawjson.AppendString(dst, string(h.RolloutStatus))
	return append(dst, '}')
}
