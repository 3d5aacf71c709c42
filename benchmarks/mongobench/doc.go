// Package mongobench measures what aglq makes of a MongoDB: its claims and
// spans beside what the bare driver does, several stores on one database, how
// fast a waiting call is woken, what an idle crew costs, whether posts to one
// attempt get into each other's way, and whole lives beside the reference.
//
// Everything that is compared takes turns, round by round, each time in a
// database of its own, and is reported as the median of the rounds.
package mongobench
