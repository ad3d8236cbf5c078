// The floor under a cold build: `spawn_floor PROGRAM LIST` starts `PROGRAM INPUT OUTPUT` for each
// pair of lines in LIST, two at a time, and does nothing else.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

enum { AT_ONCE = 2, PATH_MAX_BYTES = 4096 };

static int reap(void) {
    int status;
    return wait(&status) < 0 || status != 0;
}

int main(int argc, char **argv) {
    FILE *list = argc == 3 ? fopen(argv[2], "r") : NULL;
    if (!list) {
        fprintf(stderr, "usage: spawn_floor PROGRAM LIST\n");
        return 2;
    }
    char input[PATH_MAX_BYTES], output[PATH_MAX_BYTES];
    int running = 0, failures = 0;
    while (fgets(input, sizeof input, list) && fgets(output, sizeof output, list)) {
        input[strcspn(input, "\n")] = 0;
        output[strcspn(output, "\n")] = 0;
        if (running == AT_ONCE) {
            failures += reap();
            running--;
        }
        pid_t child;
        char *command[] = {argv[1], input, output, NULL};
        failures += posix_spawn(&child, argv[1], NULL, NULL, command, environ) != 0;
        running++;
    }
    for (; running; running--)
        failures += reap();
    return failures != 0;
}
