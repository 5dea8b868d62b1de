//go:build race

package store

// crowdOf is how many messages the tests of cursors send: with the race detector each takes ten times as long.
const crowdOf = 8_192
