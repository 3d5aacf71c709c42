package mongo

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readconcern"
)

// appName is how the server knows connections of aglq.
const appName = "aglq"

// abandonedAfter is how long a transaction of aglq rests before it is taken for
// that of a dead process. A live one rests for milliseconds; should one be
// killed all the same, its section runs again.
const abandonedAfter = 2 * time.Second

// freeAbandoned ends transactions whose process died in the middle. The server
// would keep them, and everything they have written to locked, for a minute.
// It does what the user's rights allow and reports nothing: whoever calls it
// tries again anyway.
func (b *Backend) freeAbandoned(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, selectTimeout)
	defer cancel()
	admin := b.client.Database("admin", options.Database().SetReadConcern(readconcern.Local()))
	cursor, err := admin.Aggregate(ctx, bson.A{
		bson.D{{Key: "$currentOp", Value: bson.D{{Key: "idleSessions", Value: true}}}},
		bson.D{{Key: "$match", Value: bson.D{
			{Key: "type", Value: "idleSession"},
			{Key: "appName", Value: appName},
			{Key: "transaction.timeInactiveMicros", Value: bson.D{{Key: "$gt", Value: abandonedAfter.Microseconds()}}},
		}}},
		bson.D{{Key: "$project", Value: bson.D{{Key: "id", Value: "$lsid.id"}}}},
	})
	if err != nil {
		b.log.Debug("abandoned transactions not looked for", "error", err)
		return
	}
	var found []bson.Raw
	if err := cursor.All(ctx, &found); err != nil || len(found) == 0 {
		return
	}
	sessions := bson.A{}
	for _, f := range found {
		sessions = append(sessions, bson.D{{Key: "id", Value: f.Lookup("id")}})
	}
	err = admin.RunCommand(ctx, bson.D{{Key: "killSessions", Value: sessions}}).Err()
	b.log.Warn("transactions of a dead process ended", "transactions", len(sessions), "error", err)
}
