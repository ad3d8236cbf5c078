// The command of the model test: a pure function of what it is given, and a log line.
//
//   act print FILE                                       prints a file
//   act run LOG ID FLAGS SALT VARIABLE MODE OUT FLAKY DEPFILE HEADER HEADER -- INPUTS
//
// Flags: `s` leaves out remarks, `b` fails on bad input, then `m` leaves a mess, `f` fails at first,
// `x` minds who may execute, `L` and `M` make much. `P` writes the path of the checkout, `Q` writes
// it where a part ends that `rel` reads at once. What is read counts without that path, so that a
// seed makes the same graph anywhere.
//
// With a DEPFILE it reads the first HEADER, and the second if the first begins with a `t`, and
// says so there.
//
// What it writes is worked out a second time by `oracle.rs`: the two must agree.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// What `L` and `M` add to outputs: more than goes into a cached result, and a lot.
enum { LARGE = 6000, HUGE_ = 1 << 19, PART = 1 << 18 };

static char *lines[20000];
static int count;
static int is_bad;
static const char *flags;
static char root[4096];

static int has(char flag) { return strchr(flags, flag) != NULL; }

static void die(const char *what) {
    fprintf(stderr, "act: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t hash(uint64_t h, const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001b3ull;
    return h;
}

static const uint64_t START = 0xcbf29ce484222325ull;

static uint64_t hash_cut(uint64_t h, const char *text, size_t len) {
    const char *end = text + len, *at;
    while ((at = memmem(text, end - text, root, strlen(root)))) {
        h = hash(h, text, at - text);
        text = at + strlen(root);
    }
    return hash(h, text, end - text);
}

static char *slurp(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    char *text = NULL;
    size_t len = 0, room = 0, got;
    do {
        if (room - len < 4096) text = realloc(text, (room = room * 2 + 8192));
        got = fread(text + len, 1, room - len - 1, file);
        len += got;
    } while (got > 0);
    fclose(file);
    text[len] = 0;
    return text;
}

static void line(const char *path, const char *mark, uint64_t h) {
    if (asprintf(&lines[count++], "%s %s%016llx\n", path, mark, (unsigned long long)h) < 0) exit(3);
}

static void regular(const char *path, mode_t mode) {
    char *text = slurp(path);
    uint64_t h = START;
    for (char *at = text; *at;) {
        char *end = strchrnul(at, '\n');
        size_t len = end - at + (*end == '\n');
        if (len == 4 && !memcmp(at, "bad\n", 4)) is_bad = 1;
        // Remarks are left out, so that some edits change nothing further on.
        if (!(has('s') && *at == '#')) h = hash_cut(h, at, len);
        at += len;
    }
    free(text);
    line(path, has('x') && (mode & 0100) ? "x " : "", h);
}

static void name(FILE *depfile, const char *path) {
    fputc(' ', depfile);
    for (; *path; path++) {
        if (*path == ' ') fputc('\\', depfile);
        fputc(*path, depfile);
    }
}

static void headers(const char *path, char **names, char **inputs) {
    FILE *depfile = fopen(path, "w");
    if (!depfile) die(path);
    fputs("out: \\\n /usr/include/stdio.h", depfile);
    for (; *inputs; inputs++) name(depfile, *inputs);
    for (int i = 0; i < 2 && *names[i]; i++) {
        struct stat st;
        name(depfile, names[i]);
        if (stat(names[i], &st)) die(names[i]);
        if (!S_ISREG(st.st_mode)) exit(1);
        regular(names[i], st.st_mode);
        if (*slurp(names[i]) != 't') break;
    }
    fputc('\n', depfile);
    fclose(depfile);
}

static void tree(const char *path) {
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    if (n < 0) die(path);
    for (int i = 0; i < n; i++) {
        if (!strcmp(names[i]->d_name, ".") || !strcmp(names[i]->d_name, "..")) continue;
        char *below, text[4096];
        struct stat st;
        if (asprintf(&below, "%s/%s", path, names[i]->d_name) < 0) exit(3);
        if (lstat(below, &st)) die(below);
        if (S_ISDIR(st.st_mode)) tree(below);
        else if (S_ISLNK(st.st_mode)) {
            ssize_t len = readlink(below, text, sizeof text);
            line(below, "l ", hash_cut(START, text, len));
        } else regular(below, st.st_mode);
    }
}

static void write_file(const char *dir, const char *name, const char *text, int mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s%s%s", dir, *name ? "/" : "", name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
    if (mode) fchmod(fd, 0755);
    close(fd);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static char *numbered(int i, const char *text) {
    char *out;
    if (asprintf(&out, "%d %s", i, text) < 0) exit(3);
    return out;
}

// The shape of what is made follows from the text without what comes behind it.
static void make(char mode, const char *out, const char *text, size_t len) {
    uint64_t h = hash(START, text, len);
    char path[4096], name[32], *leads = "f0";
    if (mode == 'n') return;
    if (mode == 'f' || mode == 'p') {
        write_file(out, "", text, 0);
        return;
    }
    if (mode == 'd') mkdir(out, 0777);
    for (uint64_t i = 0; i < 1 + h % 3; i++) {
        snprintf(name, sizeof name, mode == 'g' ? "g%d.o" : "f%d", (int)i);
        write_file(out, name, numbered(i, text), 0);
    }
    if (mode == 'g') return;
    if (h % 5 < 2) {
        snprintf(path, sizeof path, "%s/sub", out);
        mkdir(path, 0777);
        write_file(path, "n", text, 0);
    }
    if (h % 7 < 3) write_file(out, "run", text, 1);
    if (h % 11 < 5) {
        snprintf(path, sizeof path, "%s/link", out);
        if (has('P') && asprintf(&leads, "%s/%s/f0", root, out) < 0) exit(3);
        if (symlink(leads, path)) die(path);
    }
    if (h % 13 < 6) {
        snprintf(path, sizeof path, "%s/empty", out);
        mkdir(path, 0777);
    }
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "print")) {
        fputs(slurp(argv[2]), stdout);
        return 0;
    }
    if (argc < 14 || strcmp(argv[1], "run")) return 2;
    const char *log = argv[2], *id = argv[3], *salt = argv[5], *variable = argv[6];
    const char *out = argv[8], *flaky = argv[9];
    flags = argv[4];
    char mode = *argv[7], *entry, *text;
    if (!getcwd(root, sizeof root)) die("getcwd");
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    int len = asprintf(&entry, "%s\n", id);
    if (fd < 0 || write(fd, entry, len) != len) die(log);
    close(fd);
    if (has('f')) {
        // The first attempt fails, the second does not.
        int made = open(flaky, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (made >= 0) return 1;
        unlink(flaky);
    }
    for (int i = 14; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st)) die(argv[i]);
        struct stat self;
        lstat(argv[i], &self);
        if (S_ISREG(st.st_mode)) regular(argv[i], st.st_mode);
        else if (S_ISLNK(self.st_mode)) line(argv[i], "d ", START);
        else tree(argv[i]);
    }
    if (*argv[10]) headers(argv[10], argv + 11, argv + 14);
    qsort(lines, count, sizeof *lines, by_text);
    const char *value = *variable ? getenv(variable) : NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    fprintf(memory, "%s %s %s\n", id, salt, value ? value : "-");
    for (int i = 0; i < count; i++) fputs(lines[i], memory);
    if (strchr("fdg", mode) && (has('L') || has('M')))
        for (int i = 0; i < (has('M') ? HUGE_ : LARGE); i++) fputc('.', memory);
    fflush(memory);
    size_t len_of_text = size;
    if (strchr("fdgp", mode) && (has('P') || has('Q'))) {
        size_t from = PART - strlen(root) / 2;
        for (size_t i = size; has('Q') && i < from; i++) fputc('.', memory);
        fprintf(memory, "\1\177%s/src\2\n", root);
    }
    fclose(memory);
    if (has('b') && is_bad) {
        // A failed run may leave something at its outputs.
        if (has('m')) make(mode, out, "mess\n", 5);
        fprintf(stderr, "bad input\n");
        return 1;
    }
    make(mode, out, text, len_of_text);
    printf("made %s\n", id);
    return 0;
}
