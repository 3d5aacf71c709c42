package collections

import (
	"time"

	"github.com/aglq/aglq/queue"
)

// observedTx tells of what a section does.
type observedTx struct {
	Tx
	observer Observer
	caller   string
}

func (t *observedTx) told(op Operation, began time.Time, err error) {
	t.observer.Operation(t.caller, op, time.Since(began), err)
}

// Prefetch implements Tx.
func (t *observedTx) Prefetch(rolloutIDs, workerIDs []string) error {
	began := time.Now()
	err := t.Tx.Prefetch(rolloutIDs, workerIDs)
	t.told(OpPrefetch, began, err)
	return err
}

// Rollout implements Tx.
func (t *observedTx) Rollout(id string) (*queue.Record, error) {
	began := time.Now()
	r, err := t.Tx.Rollout(id)
	t.told(OpTxRollout, began, err)
	return r, err
}

// Head implements Tx.
func (t *observedTx) Head(n int) ([]*queue.Record, error) {
	began := time.Now()
	head, err := t.Tx.Head(n)
	t.told(OpHead, began, err)
	return head, err
}

// InsertRollouts implements Tx.
func (t *observedTx) InsertRollouts(rs []*queue.Record) error {
	began := time.Now()
	err := t.Tx.InsertRollouts(rs)
	t.told(OpInsertRollouts, began, err)
	return err
}

// PutRollout implements Tx.
func (t *observedTx) PutRollout(r *queue.Record) error {
	began := time.Now()
	err := t.Tx.PutRollout(r)
	t.told(OpPutRollout, began, err)
	return err
}

// Worker implements Tx.
func (t *observedTx) Worker(id string) (*queue.Worker, error) {
	began := time.Now()
	w, err := t.Tx.Worker(id)
	t.told(OpTxWorker, began, err)
	return w, err
}

// PutWorker implements Tx.
func (t *observedTx) PutWorker(w *queue.Worker) error {
	began := time.Now()
	err := t.Tx.PutWorker(w)
	t.told(OpPutWorker, began, err)
	return err
}

// Resources implements Tx.
func (t *observedTx) Resources(id string) (*queue.ResourcesUpdate, error) {
	began := time.Now()
	u, err := t.Tx.Resources(id)
	t.told(OpTxResources, began, err)
	return u, err
}

// PutResources implements Tx.
func (t *observedTx) PutResources(u *queue.ResourcesUpdate) error {
	began := time.Now()
	err := t.Tx.PutResources(u)
	t.told(OpPutResources, began, err)
	return err
}

// Receipt implements Tx.
func (t *observedTx) Receipt(key string) (*Receipt, error) {
	began := time.Now()
	r, err := t.Tx.Receipt(key)
	t.told(OpReceipt, began, err)
	return r, err
}

// PutReceipt implements Tx.
func (t *observedTx) PutReceipt(r *Receipt) error {
	began := time.Now()
	err := t.Tx.PutReceipt(r)
	t.told(OpPutReceipt, began, err)
	return err
}
