// Copies one small file: `cp INPUT OUTPUT`. Linked statically it starts in a third of the time of
// the system's `cp`; it stands in for it where a workload is only made ready and nothing is timed.
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char block[1 << 16];
    ssize_t size;
    int input = argc == 3 ? open(argv[1], O_RDONLY) : -1;
    int output = argc == 3 ? open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (input < 0 || output < 0)
        return 1;
    while ((size = read(input, block, sizeof block)) > 0)
        if (write(output, block, size) != size)
            return 1;
    return size < 0;
}
