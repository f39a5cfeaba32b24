/* The floor of the delivery benchmarks: what is left when nothing is decided any more.
 *
 *   floor PORT REDIS_PORT FRAME
 *
 * Subscribes to `project:*`, and for each message writes the bytes of the file FRAME, in which it only puts the
 * index of the event (where the file has NNNNNNNN), to each viewer of that project: one `write` each. It
 * renders nothing, decodes nothing and knows no slow viewer. In FRAME and paths a project is its number,
 * six digits behind `p`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536
static int project_of[MOST], *members[MOST], counts[MOST];
static char frame[1 << 20]; static int length, index_at = -1;

static void join(int fd, int project) {
  members[project] = realloc(members[project], (counts[project] + 1) * sizeof(int));
  members[project][counts[project]++] = fd;
}

static void deliver(int project, const char *index) {
  if (index_at >= 0) memcpy(frame + index_at, index, 8);
  for (int i = 0; i < counts[project]; i++) if (write(members[project][i], frame, length) < 0) {}
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  struct rlimit files = {MOST, MOST}; setrlimit(RLIMIT_NOFILE, &files);
  FILE *file = fopen(argv[3], "r");
  char body[1 << 19]; int size = fread(body, 1, sizeof body, file);
  frame[0] = (char)0x81; frame[1] = 126; frame[2] = size >> 8; frame[3] = size & 255;  /* 126 to 65535 bytes */
  memcpy(frame + 4, body, size); length = size + 4;
  char *found = memmem(frame, length, "NNNNNNNN", 8); if (found) index_at = found - frame;

  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), redis = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  bind(listener, (struct sockaddr *)&address, sizeof address); listen(listener, 4096);
  address.sin_port = htons(atoi(argv[2])); inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  if (connect(redis, (struct sockaddr *)&address, sizeof address)) return 1;
  if (write(redis, "PSUBSCRIBE project:*\r\n", 22) != 22) return 1;
  int epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}; epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  event.data.fd = redis; epoll_ctl(epoll, EPOLL_CTL_ADD, redis, &event);
  static char input[1 << 20]; int have = 0;
  struct epoll_event events[256];
  for (;;) {
    int count = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        int viewer = accept(listener, NULL, NULL);
        setsockopt(viewer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        project_of[viewer] = -1;
        event.data.fd = viewer; epoll_ctl(epoll, EPOLL_CTL_ADD, viewer, &event);
      } else if (fd == redis) {
        int got = read(redis, input + have, sizeof input - have - 1);
        if (got <= 0) return 0;
        have += got; input[have] = 0;
        char *at = input, *next;  /* a message ends with its event, which has the channel before and an id within */
        while ((next = strstr(at, "\"id\":\"1-")) && strstr(next, "}\r\n")) {
          char *channel = NULL, *look = at;
          while ((look = strstr(look, "project:p")) && look < next) { channel = look; look += 9; }
          if (channel) deliver(atoi(channel + 9), next + 8);
          at = strstr(next, "}\r\n") + 3;
        }
        have -= at - input; memmove(input, at, have);
      } else {
        char request[4096]; int got = read(fd, request, sizeof request - 1);
        if (got <= 0) { close(fd); continue; }
        request[got] = 0;
        char *path = strstr(request, "/p");
        if (project_of[fd] < 0 && path) {
          project_of[fd] = atoi(path + 2);
          const char *answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
          if (write(fd, answer, strlen(answer)) < 0) {}
          join(fd, project_of[fd]);
        }
      }
    }
  }
}
