// Starts one command and writes how long it took: `clock RESULT PROGRAM [ARG…]`.
//
// A program of its own, because the peak memory that the kernel tells of a child begins at what
// its parent had in memory, and because Python needs longer to wake up than some builds take.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double seconds(struct timeval t) {
    return t.tv_sec + t.tv_usec / 1e6;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: clock RESULT PROGRAM [ARG...]\n");
        return 2;
    }
    pid_t child;
    int status;
    struct rusage used;
    double begun = now();
    int failed = posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ);
    if (failed) {
        fprintf(stderr, "clock: `%s`: %s\n", argv[2], strerror(failed));
        return 2;
    }
    wait4(child, &status, 0, &used);
    double wall_s = now() - begun;
    FILE *result = fopen(argv[1], "w");
    if (!result)
        return 2;
    fprintf(result, "%.6f %.6f %ld\n", wall_s, seconds(used.ru_utime) + seconds(used.ru_stime),
            used.ru_maxrss);
    fclose(result);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
