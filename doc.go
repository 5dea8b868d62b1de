// Package rouse is a relay between app backends and sleeping phones: a backend
// posts a message, Rouse stores it, wakes the phone through Apple or Google with
// a push that holds no content, and the app fetches the message and acks it.
//
// A message's way: api decodes and checks it, store accepts it in one commit, and only then
// does a hint go over the bus. Either a parked poll reads the inbox and answers, or worker sends one push through
// a provider and records what came of it. The two never call each other; they meet in the store.
//
// The rooms, each importing only downward (arch_test.go enforces it):
//
//	cmd/rouse  config          the command; serve.go wires the rooms
//	api  worker  webhooks      takes in and hands out; wakes; posts events
//	cluster                    which nodes there are
//	store      bus  providers/*  the truth; "look again"; Apple and Google
//	messages   tokens  providers what travels; who can be reached; what a push is
//	fault      ident           the one error; names
package rouse
