package main

// The C library gives each thread that allocates an arena of its own, a page
// and the page tables for it: in an idle shim with ten threads, which allocate
// next to nothing, a fortieth of its memory. One arena serves all.

/*
#include <malloc.h>

__attribute__((constructor)) static void one_arena(void)
{
	mallopt(M_ARENA_MAX, 1);
}
*/
import "C"
