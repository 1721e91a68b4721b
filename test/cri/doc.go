// Package cri drives the shim as a node's kubelet does: pods and containers
// through containerd's CRI over gRPC, with the runtime handler "numa". Every
// test takes a census of the machine before and after.
//
//	go test ./cri -containerd=2 -registration=numa
//	go test ./cri -containerd=1.7 -registration=runc
//	go test ./cri -registration=reference        # the runc shim itself
package cri
