// Package kubernetes runs pods as a cluster does: a real etcd, API server and
// kubelet drive a real containerd, and this project's shim runs the pods of
// the RuntimeClass "numa".
//
// Everything lives in mount, PID and network namespaces of the test's own and
// below one cgroup. There is no scheduler and no controller: pods name their
// node.
//
//	make test-kubernetes
package kubernetes
