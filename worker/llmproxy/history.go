package llmproxy

import (
	"crypto/sha256"
	"fmt"
	"net/http"

	"github.com/aglq/aglq/queue/rawjson"
)

// historyBytes bounds the conversations that are kept for calls that name the
// response they go on from, in bytes. An upstream that is asked for chats keeps
// none itself.
const historyBytes = 64 << 20

// historyKey tells the responses of one attempt from those of all others.
func (c *call) historyKey(responseID string) lruKey {
	return lruKey(sha256.Sum256(fmt.Appendf(nil, "%q %q %q", c.ref.RolloutID, c.ref.AttemptID, responseID)))
}

// remembered is the request with what was said before in front of its input, where
// it names a response to go on from.
func (c *call) remembered() (rawjson.Value, error) {
	c.whole = c.body
	id := c.body.Get("previous_response_id").Text()
	if c.endpoint != responses || id == "" {
		return c.body, nil
	}
	before, ok := c.p.history.get(c.historyKey(id))
	if !ok {
		return nil, &refusal{
			status: http.StatusBadRequest, kind: "invalid_request_error",
			msg: fmt.Sprintf("there is no response %q to go on from: it was not asked to be stored, or is of another attempt, or was "+
				"too long ago; send the whole conversation as input", id),
		}
	}
	var items array
	items.extend(before)
	items.extend(inputItems(c.body))
	var over object
	over.raw("input", items.list())
	c.whole = merge(c.body, over.close())
	return c.whole, nil
}

// keepTurn keeps what was said, up to the answer, for a call that goes on from it.
func (c *call) keepTurn() {
	if c.endpoint != responses || c.wire == responses || c.outcome != OutcomeOK {
		return
	}
	if store := c.body.Get("store"); store.Kind() == rawjson.KindBool && !store.Bool() {
		return
	}
	answer := c.translateAnswer(c.answer)
	var items array
	items.extend(inputItems(c.whole))
	items.extend(answer.Get("output"))
	list := items.list()
	c.p.history.put(c.historyKey(answer.Get("id").Text()), list, len(list))
}

// inputItems are the items of a request's input.
func inputItems(body rawjson.Value) rawjson.Value {
	if input := body.Get("input"); input.Kind() != rawjson.KindString {
		return input
	}
	return listOf(message("user", body.Get("input")))
}
