// Command numashim is the operator's tool beside the shim: it lists where
// containers are placed and why, installs the shim on a node of a Kubernetes
// cluster, and tells the cluster when the node is ready to run pods with it.
//
// It is not the shim, is not needed by it, asks no shim anything (bundles,
// cgroups and the ledger tell), and never edits containerd's configuration nor
// restarts anything: who owns the node does.
package main
