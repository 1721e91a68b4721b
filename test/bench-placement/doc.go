// Command bench-placement plays arrivals and departures of containers with
// dedicated CPUs on models of machines, and compares where package numa puts
// them with where others would: kubelet's static CPU manager, alone and with
// the Topology Manager's best-effort policy, the fullest and the emptiest node
// that fits, and CPUs drawn at random.
//
// All of them see the same arrivals: a Poisson stream, sizes drawn from a mix,
// lifetimes log-normal. A container that finds too few CPUs free on the whole
// machine is turned away. It prints tables in Markdown and the verdicts on what
// the project promises.
package main
