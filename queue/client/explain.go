package client

import (
	"context"
	"encoding/json"

	"github.com/aglq/aglq/queue"
)

// Explain implements queue.Store. The reference's server cannot explain; the
// error says so.
func (c *Client) Explain(ctx context.Context, id string) (queue.Explanation, error) {
	var x queue.Explanation
	v, err := c.get(ctx, route("rollouts", id, "explain"))
	if queue.KindOf(err) == queue.NotFound && err.Error() == "Not Found" { // of a route, not of a rollout
		return x, queue.Errorf(queue.Invalid, "store %s cannot explain rollouts: it is not aglq's, or an older one", c.base)
	}
	if err != nil {
		return x, err
	}
	if err := json.Unmarshal(v, &x); err != nil || x.RolloutID == "" {
		return x, unexpected("explanation", v)
	}
	return x, nil
}
