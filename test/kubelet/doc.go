// Package kubelet plays a node's kubelet to a rig's containerd: it configures
// CRI and its network, makes pod cgroups and directories as kubelet does, and
// runs pods and containers over the CRI's gRPC API.
//
// Job: containerd's CRI configuration with runtime handlers, by each way a
// shim can be registered; a node's images; requests with the fields that
// kubelet sets; the streaming API's SPDY connections.
//
// Non-job: no reconciliation, no API server, no images from registries, and no
// statement about any shim.
//
// Invariants: a pod's cgroups are below the run's own, shaped as kubelet's
// (kubepods/burstable/pod<uid>); what a Pod made, its Remove removes, and it
// says so where the runtime left something in the pod's cgroup.
//
// Kernel: as package rig; network namespaces, bridges and veth pairs.
package kubelet
