/* A storm: all viewers of a plan (`benchmarks/delivery/load.h`) lose their connections at once, and all come back at once.
 *
 *   storm HOST PORT BACK_PORT REDIS_PORT PLAN
 *
 * Events are published at the plan's rate throughout. It writes READY when all are connected and waits for a line;
 * after `seconds` it writes STORM and waits for another. Where BACK_PORT is PORT it cuts all connections then; else
 * they are to be cut by the server's death. Each viewer dials again as soon as it is cut off, all of them at the
 * same time, and again after RETRY_US where that is refused. It is whole with the first frame after its return that
 * holds an event which it had not seen, and no older one than the newest that was published when it was cut off.
 * When all are, it writes WHOLE, and one line of JSON.
 */
#include "../delivery/load.h"

#define RETRY_US 500000
#define LIMIT_US 10000000

enum { UP, DUE, DIALLING, ASKING, BACK, IS_WHOLE };
typedef struct { int state; uint64_t cut_us, due_us, whole_us; long seen, newest; } Return;

static Return *returns;
static const char *host;
static int back_port, whole, refused, is_storm;

static void register_for(Viewer *viewer, uint32_t events, int how) {
  struct epoll_event event = {.events = events, .data.u32 = viewer - viewers};
  epoll_ctl(epoll, how, viewer->fd, &event);
}

static void dial_again(Viewer *viewer) {
  Return *back = &returns[viewer - viewers];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(back_port)};
  int one = 1;
  inet_pton(AF_INET, host, &address.sin_addr);
  viewer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(viewer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(viewer->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) die("connect");
  viewer->have = 0; back->state = DIALLING;
  register_for(viewer, EPOLLOUT, EPOLL_CTL_ADD);
}

static void try_later(Viewer *viewer) {
  Return *back = &returns[viewer - viewers];
  if (viewer->fd >= 0) { epoll_ctl(epoll, EPOLL_CTL_DEL, viewer->fd, NULL); close(viewer->fd); viewer->fd = -1; }
  refused++; back->state = DUE; back->due_us = now_us() + RETRY_US;
}

static void when_cut_off(Viewer *viewer) {
  Return *back = &returns[viewer - viewers];
  if (!is_storm) { fprintf(stderr, "storm: a viewer was cut off too early\n"); exit(1); }
  if (back->state == IS_WHOLE) { fprintf(stderr, "storm: a viewer was cut off again\n"); exit(1); }
  if (back->state != UP) { try_later(viewer); return; }
  back->cut_us = now_us(); back->seen = viewer->index;
  back->newest = plan.first + projects[viewer->project].sent - 1;
  dial_again(viewer);
}

static void ask(Viewer *viewer) {
  char path[256], *at; int error = 0; socklen_t size = sizeof error;
  getsockopt(viewer->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error) { try_later(viewer); return; }
  if ((at = strstr(plan.back, "INDEX"))) snprintf(path, sizeof path, "%.*s%ld%s", (int)(at - plan.back), plan.back, viewer->index, at + 5);
  else snprintf(path, sizeof path, "%s", plan.back);
  fill(path, viewer->project);
  request(viewer, path, host, back_port);
  returns[viewer - viewers].state = ASKING;
  register_for(viewer, EPOLLIN, EPOLL_CTL_MOD);
}

static void when_ready(Viewer *viewer, uint32_t events, uint64_t now) {
  (void)events;
  Return *back = &returns[viewer - viewers];
  if (back->state == DIALLING) { ask(viewer); return; }
  if (back->state == ASKING) {
    int answered = take_answer(viewer);
    if (answered < 0) try_later(viewer);
    if (answered <= 0) return;
    back->state = BACK;
  }
  receive(viewer, now);
  if (back->state == BACK && viewer->index > back->seen && viewer->index >= back->newest) {
    back->state = IS_WHOLE; back->whole_us = now_us(); whole++;
  }
}

static int by_size(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }

int main(int argc, char **argv) {
  char line[16];
  if (argc != 6) { fprintf(stderr, "usage: storm HOST PORT BACK_PORT REDIS_PORT PLAN\n"); return 2; }
  host = argv[1]; back_port = atoi(argv[3]);
  read_plan(argv[5]);
  returns = calloc(plan.projects * plan.viewers, sizeof *returns);
  redis_fd = dial("127.0.0.1", atoi(argv[4])); fcntl(redis_fd, F_SETFL, O_NONBLOCK);
  double connecting = connect_all(host, atoi(argv[2]));
  printf("READY %.3f\n", connecting); fflush(stdout);
  if (!fgets(line, sizeof line, stdin)) return 1;

  started_us = now_us();
  uint64_t now, until = started_us + (uint64_t)(plan.seconds * 1e6);
  while ((now = now_us()) < until) { publish_due(now); flush_redis(); poll_viewers(1); }
  is_storm = 1;
  printf("STORM\n"); fflush(stdout);
  if (!fgets(line, sizeof line, stdin)) return 1;

  if (back_port == atoi(argv[2])) {
    struct linger at_once = {.l_onoff = 1};  /* without a farewell */
    for (int v = 0; v < total; v++) { setsockopt(viewers[v].fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once); close(viewers[v].fd); }
    for (int v = 0; v < total; v++) { viewers[v].fd = -1; when_cut_off(&viewers[v]); }
  }
  until = now_us() + LIMIT_US;
  while (whole < total && (now = now_us()) < until) {
    publish_due(now); flush_redis(); poll_viewers(1);
    for (int v = 0; v < total; v++) if (returns[v].state == DUE && returns[v].due_us <= now) dial_again(&viewers[v]);
  }
  printf("WHOLE\n"); fflush(stdout);

  double *took_ms = calloc(total, sizeof *took_ms); int count = 0;
  for (int v = 0; v < total; v++) if (returns[v].state == IS_WHOLE) took_ms[count++] = (returns[v].whole_us - returns[v].cut_us) / 1e3;
  qsort(took_ms, count, sizeof *took_ms, by_size);
  printf("{\"missing\": %d, \"refused\": %d, \"p50_ms\": %.1f, \"p99_ms\": %.1f, \"max_ms\": %.1f}\n", total - count, refused,
    count ? took_ms[count / 2] : -1, count ? took_ms[count * 99 / 100] : -1, count ? took_ms[count - 1] : -1);
  return 0;
}
