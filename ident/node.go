package ident

// Node names one run of a process among those that share a database: "node_" and 26 characters.
type Node string

// NodePrefix is that of a Node.
const NodePrefix = "node_"

// NewNode makes an id for a process that starts.
func NewNode() Node { return Node(NodePrefix + mint()) }
