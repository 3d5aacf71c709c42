package mongotest

import (
	"context"
	"testing"

	"github.com/aglq/aglq/collections/mongo/mongod"
)

// Server is a mongod process that is the only member of a replica set.
type Server struct{ set *mongod.Set }

// Start runs a server for one test alone, which may kill it.
func Start(t testing.TB) *Server {
	t.Helper()
	return &Server{StartSet(t, 1)}
}

// StartSet runs a replica set for one test alone, which may kill its members
// and make them step down.
func StartSet(t testing.TB, members int) *mongod.Set {
	t.Helper()
	set, err := mongod.Start(context.Background(), mongod.Options{Members: members})
	if err != nil {
		t.Fatalf("starting a MongoDB to test with: %v", err)
	}
	t.Cleanup(set.Close)
	return set
}

// URI is the address to connect to.
func (s *Server) URI() string { return s.set.URI() }

// Kill ends the server at once, as a crash would, and returns when it is gone.
func (s *Server) Kill() { s.set.Kill(0) }

// Restart starts a killed server again on its data and port, and returns when
// it takes writes.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.set.Restart(context.Background(), 0); err != nil {
		t.Fatalf("restarting mongod: %v", err)
	}
}
