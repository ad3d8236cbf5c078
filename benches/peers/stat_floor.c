// The floor under a null build: `stat_floor LIST` asks for the status of each file that is named
// in LIST, one a line, on two threads, and does nothing else.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { THREADS = 2 };

struct part {
    char *at, *end;
    long missing;
};

static void *look(void *argument) {
    struct part *part = argument;
    struct stat status;
    for (char *name = part->at; name < part->end; name += strlen(name) + 1)
        part->missing += stat(name, &status) != 0;
    return NULL;
}

// Returns the text of a file with its line ends as string ends.
static char *names(const char *path, size_t *size) {
    struct stat status;
    FILE *list = fopen(path, "r");
    if (!list || stat(path, &status))
        exit(2);
    char *text = malloc(status.st_size + 1);
    *size = fread(text, 1, status.st_size, list);
    fclose(list);
    text[*size] = 0;
    for (char *at = text; (at = memchr(at, '\n', text + *size - at)); at++)
        *at = 0;
    return text;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: stat_floor LIST\n");
        return 2;
    }
    size_t size;
    char *text = names(argv[1], &size);
    struct part parts[THREADS];
    pthread_t threads[THREADS];
    char *at = text;
    for (int i = 0; i < THREADS; i++) {
        char *end = text + size * (i + 1) / THREADS;
        // A part ends where a name does.
        while (end < text + size && end[-1] != 0)
            end++;
        parts[i] = (struct part){at, end, 0};
        at = end;
        pthread_create(&threads[i], NULL, look, &parts[i]);
    }
    long missing = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        missing += parts[i].missing;
    }
    return missing != 0;
}
