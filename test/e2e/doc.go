// Package e2e drives a shim through a real containerd, as its users do: with
// containerd's Go client and with ctr. Every test takes a census of the
// machine before and after, and holds every container's events against
// containerd's contract.
//
//	go test ./e2e -runtime=io.containerd.numa.v1 -containerd=2
//	go test ./e2e -runtime=io.containerd.runc.v2 -containerd=1.7
package e2e
