package mongo

import (
	"context"
	"errors"
	"slices"

	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/topology"

	"github.com/aglq/aglq/queue"
)

// maxDocument is what a document may take, below the server's 16 MiB by enough
// for the estimates of sizes.
const maxDocument = 16<<20 - 16<<10

// maxPayload is what callers may put into a rollout. The rest is room for
// attempts: a rollout that was accepted can always be claimed, else it would
// block the head of the queue.
const maxPayload = maxDocument - 512<<10

// errChanged says that what a section read was changed by another one, so that
// it has to run again.
var errChanged = errors.New("another section changed what this one had read")

// passingCodes are server errors that end by themselves: no primary, shutting
// down, network, overload, time limits.
var passingCodes = []int{6, 7, 24, 50, 64, 89, 91, 100, 133, 134, 189, 202, 262, 9001, 10107, 11600, 11602, 13388, 13435, 13436}

// tooLargeCodes are the server's words for a document above its limit, and for a
// transaction that its cache cannot hold.
var tooLargeCodes = []int{388, 10334, 17280, 17419, 17420}

// wrap gives an error of the driver its kind and says what was being done.
func wrap(err error, doing string) error {
	var own *queue.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	case driver.IsDuplicateKeyError(err):
		return queue.Wrap(queue.Conflict, err, doing)
	case hasCode(err, tooLargeCodes):
		return queue.Wrap(queue.TooLarge, err, doing+": MongoDB does not hold so much in one write; send less in one call")
	case passing(err):
		return queue.Wrap(queue.Unavailable, err, doing+": MongoDB cannot be reached or is overloaded; retry later")
	}
	return queue.Wrap(queue.Internal, err, doing)
}

func hasCode(err error, codes []int) bool {
	var se driver.ServerError
	return errors.As(err, &se) && slices.ContainsFunc(codes, se.HasErrorCode)
}

// passing reports whether the same call may succeed later.
func passing(err error) bool {
	var selection topology.ServerSelectionError
	var pool topology.WaitQueueTimeoutError
	var labeled driver.LabeledError
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &selection) || errors.As(err, &pool) ||
		errors.Is(err, driver.ErrClientDisconnected) ||
		driver.IsTimeout(err) || driver.IsNetworkError(err) ||
		(errors.As(err, &labeled) && (labeled.HasErrorLabel("RetryableWriteError") || labeled.HasErrorLabel(transient))) ||
		hasCode(err, passingCodes)
}

// The labels by which the server says how a transaction failed.
const (
	transient     = "TransientTransactionError"
	commitUnknown = "UnknownTransactionCommitResult"
)

func hasLabel(err error, label string) bool {
	var labeled driver.LabeledError
	return errors.As(err, &labeled) && labeled.HasErrorLabel(label)
}

// rolloutTooLarge refuses a rollout whose payloads leave no room for attempts.
func rolloutTooLarge(r *queue.Record) error {
	if size := payloadSize(r); size > maxPayload {
		return queue.Errorf(queue.TooLarge,
			"rollout %s holds %d bytes of input and metadata, more than the %d that MongoDB keeps; store large data elsewhere and refer to it",
			r.Rollout.RolloutID, size, maxPayload)
	}
	return tooLarge("rollout", r.Rollout.RolloutID, recordSize(r))
}

// tooLarge refuses a document before it is sent.
func tooLarge(what, id string, size int) error {
	if size <= maxDocument {
		return nil
	}
	return queue.Errorf(queue.TooLarge,
		"%s %.100s takes about %d bytes, more than the %d that MongoDB keeps in one document; store large data elsewhere and refer to it",
		what, id, size, maxDocument)
}
