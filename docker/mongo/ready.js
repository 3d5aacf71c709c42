// The health check of the mongo service, for mongosh. The first one that meets a
// server without a replica set makes the set, of this one member. Exit status 0:
// the server takes writes.
const member = process.env.AGLQ_MONGO_MEMBER || "localhost:27017";
try {
  db.adminCommand({ replSetGetStatus: 1 });
} catch (e) {
  if (e.codeName !== "NotYetInitialized") throw e;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: member }] });
}
quit(db.hello().isWritablePrimary ? 0 : 1);
