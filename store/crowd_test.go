//go:build !race

package store

// crowdOf is how many messages the tests of cursors send.
const crowdOf = 102_400
