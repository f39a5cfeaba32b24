/* What load programs share: a plan, viewers that look for `data-event=` in each message, and a publisher that knows
 * when it sent each index. One process and one thread; each program includes it once.
 *
 * A plan has one `name value` a line:
 *   projects N, viewers N (of each project), first N (index of the first event), seconds S,
 *   rate R (events a second and project; 0 for as many as the server keeps up with),
 *   window N (events of a project that may be under way where rate is 0),
 *   path TEXT (of the WebSocket), back TEXT (the same for who comes back), hello TEXT (a text message to send first, or empty),
 *   template FILE (the commands that publish one event).
 * In path and template, PPPPPP stands for the number of the project and NNNNNNNN for the index of the event, in
 * decimal and zero-padded, so that nothing changes its length; in back, INDEX for that of the viewer's last event.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1 << 18)
#define RING (1 << 16)   /* send times of the last events of a project */
#define QUIET_LIMIT_US 10000000
#define BUCKETS (64 * 32) /* logarithmic, 32 to a doubling, of microseconds */

typedef struct { int fd, project, is_open; long index; uint32_t have, cap; unsigned char *buffer; } Viewer;
typedef struct { long sent, reached; uint32_t *at_us; } Project;

static struct { int projects, viewers, window; long first; double seconds, rate; char path[256], back[256], hello[256], template[256]; } plan;
static Viewer *viewers;
static Project *projects;
static int total, opened, epoll, redis_fd, is_counting;
static long deliveries, reflected, skipped, published, bytes_in;
static uint64_t histogram[BUCKETS], started_us;
static char *template; static size_t template_length;
static int project_at[64], project_ats, index_at[64], index_ats;
static char *pending; static size_t pending_length, pending_sent, pending_cap;

static uint64_t now_us(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000; }
static void die(const char *what) { fprintf(stderr, "load: %s: %s\n", what, strerror(errno)); exit(1); }

static int bucket_of(uint64_t us) {
  if (us < 64) return (int)us;
  int top = 63 - __builtin_clzll(us);
  return (top - 4) * 32 + (int)((us >> (top - 5)) & 31);
}
static int dial(const char *host, int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, host, &address.sin_addr);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

static void number(char *at, int digits, long value) { while (digits--) { at[digits] = '0' + value % 10; value /= 10; } }

static void fill(char *text, int project) { char *at; while ((at = strstr(text, "PPPPPP"))) number(at, 6, project); }

static void send_text(int fd, const char *text) {
  unsigned char frame[300]; size_t length = strlen(text);
  frame[0] = 0x81; frame[1] = 0x80 | length; memset(frame + 2, 0, 4); memcpy(frame + 6, text, length);
  if (write(fd, frame, length + 6) < 0) { /* the server has gone: seen when reading */ }
}

/* Ask for the WebSocket at a path. */
static void request(Viewer *viewer, const char *path, const char *host, int port) {
  char text[768];
  int size = snprintf(text, sizeof text,
    "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", path, host, port);
  if (write(viewer->fd, text, size) != size) { /* the server has gone: seen when reading */ }
}

/* Read the answer: 1 once it is there, with what came behind it in the buffer; 0 as long as it is not; -1 where it is no. */
static int take_answer(Viewer *viewer) {
  if (!viewer->buffer) { viewer->cap = 8192; viewer->buffer = malloc(viewer->cap); }
  int got = read(viewer->fd, viewer->buffer + viewer->have, viewer->cap - 1 - viewer->have);
  if (got < 0 && errno == EAGAIN) return 0;
  if (got <= 0) return -1;
  viewer->have += got; viewer->buffer[viewer->have] = 0;
  char *end = strstr((char *)viewer->buffer, "\r\n\r\n");
  if (!end) return 0;
  if (strncmp((char *)viewer->buffer, "HTTP/1.1 101", 12)) { fprintf(stderr, "load: refused: %.200s\n", viewer->buffer); return -1; }
  viewer->have -= end + 4 - (char *)viewer->buffer;
  memmove(viewer->buffer, end + 4, viewer->have);
  if (*plan.hello) send_text(viewer->fd, plan.hello);
  return 1;
}

static void handshake(Viewer *viewer, const char *host, int port) {
  char path[256]; int answered;
  snprintf(path, sizeof path, "%s", plan.path); fill(path, viewer->project);
  viewer->fd = dial(host, port);
  request(viewer, path, host, port);
  while (!(answered = take_answer(viewer))) {}
  if (answered < 0) die("handshake");
  viewer->index = plan.first - 1;
  fcntl(viewer->fd, F_SETFL, O_NONBLOCK);
}

static void message(Viewer *viewer, const unsigned char *text, size_t length, uint64_t now) {
  Project *project = &projects[viewer->project];
  if (length && text[0] == '2' && length == 1) { send_text(viewer->fd, "3"); return; } /* Engine.IO asks */
  const unsigned char *found = memmem(text, length, "data-event=", 11);
  if (!viewer->is_open) { viewer->is_open = 1; opened++; }
  if (!found) return;
  found += 11;
  while (*found == '"' || *found == '\\') found++;
  while (*found >= '0' && *found <= '9') found++;  /* the attempt */
  found++;
  long index = 0; while (*found >= '0' && *found <= '9') index = index * 10 + *found++ - '0';
  if (index <= viewer->index) return;
  if (is_counting) {
    deliveries++; reflected += index - viewer->index; skipped += index - viewer->index - 1;
    long from = viewer->index + 1; if (index - from >= RING) from = index - RING + 1;
    uint32_t elapsed = now - started_us;
    for (; from <= index; from++) histogram[bucket_of(elapsed - project->at_us[from % RING])]++;
  }
  project->reached += index - viewer->index;
  viewer->index = index;
}

/* Each program says what it does then. */
static void when_cut_off(Viewer *viewer);

static void receive(Viewer *viewer, uint64_t now) {
  static unsigned char shared[BUFFER];
  unsigned char *data = shared; size_t have = viewer->have;
  if (have) memcpy(shared, viewer->buffer, have);
  ssize_t got = read(viewer->fd, shared + have, BUFFER - have);
  if (got == 0 || (got < 0 && errno != EAGAIN)) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, viewer->fd, NULL); close(viewer->fd); viewer->fd = -1;
    when_cut_off(viewer); return;
  }
  if (got > 0) { have += got; bytes_in += got; }
  while (have >= 2) {
    size_t header = 2, length = data[1] & 127;
    if (length == 126) { if (have < 4) break; length = data[2] << 8 | data[3]; header = 4; }
    else if (length == 127) { if (have < 10) break; length = 0; for (int i = 2; i < 10; i++) length = length << 8 | data[i]; header = 10; }
    if (have < header + length) break;
    int kind = data[0] & 15;
    if (kind == 1 || kind == 2) message(viewer, data + header, length, now);
    else if (kind == 9) { unsigned char pong[131] = {0x8A, 0x80 | length}; memcpy(pong + 6, data + header, length); if (write(viewer->fd, pong, 6 + length) < 0) {} }
    data += header + length; have -= header + length;
  }
  if (have > viewer->cap) { viewer->cap = have * 2; viewer->buffer = realloc(viewer->buffer, viewer->cap); }
  memcpy(viewer->buffer, data, have); viewer->have = have;
}

static void publish(int number_of, uint64_t now) {
  Project *project = &projects[number_of];
  if (pending_length + template_length > pending_cap) { pending_cap = 2 * (pending_length + template_length) + 65536; pending = realloc(pending, pending_cap); }
  char *at = pending + pending_length;
  long index = plan.first + project->sent++;
  memcpy(at, template, template_length);
  for (int i = 0; i < project_ats; i++) number(at + project_at[i], 6, number_of);
  for (int i = 0; i < index_ats; i++) number(at + index_at[i], 8, index);
  project->at_us[index % RING] = now - started_us;
  pending_length += template_length; published++;
}

static void flush_redis(void) {
  static char answers[BUFFER];
  while (read(redis_fd, answers, sizeof answers) > 0) if (memmem(answers, 64, "-ERR", 4)) { fprintf(stderr, "load: redis: %.200s\n", answers); exit(1); }
  while (pending_sent < pending_length) {
    ssize_t sent = write(redis_fd, pending + pending_sent, pending_length - pending_sent);
    if (sent < 0) { if (errno == EAGAIN) return; die("redis"); }
    pending_sent += sent;
  }
  pending_sent = pending_length = 0;
}

static void read_plan(const char *name) {
  FILE *file = fopen(name, "r"); char line[512], key[32]; int at;
  if (!file) die(name);
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0; at = 0;
    if (sscanf(line, "%31s %n", key, &at) != 1) continue;
    char *value = line + at;
    if (!strcmp(key, "projects")) plan.projects = atoi(value);
    else if (!strcmp(key, "viewers")) plan.viewers = atoi(value);
    else if (!strcmp(key, "first")) plan.first = atol(value);
    else if (!strcmp(key, "seconds")) plan.seconds = atof(value);
    else if (!strcmp(key, "rate")) plan.rate = atof(value);
    else if (!strcmp(key, "window")) plan.window = atoi(value);
    else if (!strcmp(key, "path")) strcpy(plan.path, value);
    else if (!strcmp(key, "back")) strcpy(plan.back, value);
    else if (!strcmp(key, "hello")) strcpy(plan.hello, value);
    else if (!strcmp(key, "template")) strcpy(plan.template, value);
  }
  fclose(file);
  if (!(file = fopen(plan.template, "r"))) die(plan.template);
  template = malloc(1 << 20); template_length = fread(template, 1, (1 << 20) - 1, file); template[template_length] = 0; fclose(file);
  for (size_t i = 0; i + 6 <= template_length; i++) {
    if (!memcmp(template + i, "PPPPPP", 6)) project_at[project_ats++] = i;
    if (i + 8 <= template_length && !memcmp(template + i, "NNNNNNNN", 8)) index_at[index_ats++] = i;
  }
}

/* And with a connection that can be read or written. */
static void when_ready(Viewer *viewer, uint32_t events, uint64_t now);

static int poll_viewers(int wait_ms) {
  static struct epoll_event events[1024];
  int count = epoll_wait(epoll, events, 1024, wait_ms);
  uint64_t now = now_us();
  for (int i = 0; i < count; i++) when_ready(&viewers[events[i].data.u32], events[i].events, now);
  return count;
}

/* All viewers, one after the other; gives how many seconds that took. */
static double connect_all(const char *host, int port) {
  struct rlimit files = {1 << 16, 1 << 16};
  setrlimit(RLIMIT_NOFILE, &files);  /* where the system grants it */
  epoll = epoll_create1(0);
  total = plan.projects * plan.viewers;
  viewers = calloc(total, sizeof *viewers); projects = calloc(plan.projects, sizeof *projects);
  for (int p = 0; p < plan.projects; p++) projects[p].at_us = calloc(RING, sizeof(uint32_t));
  uint64_t began = now_us();
  for (int v = 0; v < total; v++) {
    viewers[v].project = v / plan.viewers;
    handshake(&viewers[v], host, port);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = v};
    epoll_ctl(epoll, EPOLL_CTL_ADD, viewers[v].fd, &event);
    if (viewers[v].have) { receive(&viewers[v], now_us()); }
    poll_viewers(0);
  }
  double connecting = (now_us() - began) / 1e6;
  uint64_t limit = now_us() + QUIET_LIMIT_US;  /* first frames, until it is quiet; of many, somebody is always pinged */
  while (poll_viewers(300) && now_us() < limit) {}
  return connecting;
}

/* Publish what is due at the plan's rate; projects take turns within a period. */
static void publish_due(uint64_t now) {
  for (int p = 0; p < plan.projects; p++) {
    double due = (now - started_us) / 1e6 * plan.rate - (double)p / plan.projects;
    while (projects[p].sent < due) publish(p, now);
  }
}
