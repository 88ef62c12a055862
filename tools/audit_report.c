#include "tools/audit_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"

#define TERMINAL_MS  500
#define FILE_MS      5000
#define LINE_MAX_LEN 65536

void audit_printer_init(struct audit_printer *p, bool json, struct audit_totals *t)
{
    *p = (struct audit_printer){.json = json, .terminal = isatty(STDERR_FILENO) == 1, .totals = t};
    t->began_ms = p->shown_ms = clock_mono_ms();
}

/* ---- lines ---- */

static void clear_progress(struct audit_printer *p)
{
    if (p->line_open)
        fputs("\r\033[K", stderr);
    p->line_open = false;
}

static void write_line(struct audit_printer *p, struct buf *b)
{
    clear_progress(p);
    buf_add_char(b, '\n');
    fwrite(b->data, 1, b->len, stdout);
    fflush(stdout);
    buf_done(b);
}

static void member(struct buf *b, const char *key, const char *value)
{
    buf_add_char(b, b->len ? ',' : '{');
    buf_add_json(b, key);
    buf_add_char(b, ':');
    buf_add_json(b, value);
}

static void print_finding(struct audit_printer *p, const char *user, const struct audit_finding *f)
{
    struct buf b;
    buf_init(&b, LINE_MAX_LEN);
    if (p->json) {
        member(&b, "finding", audit_kind_name(f->kind));
        member(&b, "user", user);
        member(&b, "what", f->what);
        member(&b, "detail", f->detail);
        buf_add_char(&b, '}');
    } else {
        buf_printf(&b, "%s: %s %s: %s", user, audit_kind_name(f->kind), f->what, f->detail);
    }
    write_line(p, &b);
}

static void print_unjudged(struct audit_printer *p, const struct audit_report *r)
{
    struct buf b;
    buf_init(&b, LINE_MAX_LEN);
    if (p->json) {
        member(&b, "unjudged", r->user);
        member(&b, "why", r->why);
        buf_add_char(&b, '}');
    } else {
        buf_printf(&b, "%s: unjudged: %s", r->user, r->why);
    }
    write_line(p, &b);
}

void audit_print_report(struct audit_printer *p, const struct audit_report *r)
{
    p->totals->timelines[r->verdict]++;
    if (r->verdict == AUDIT_UNJUDGED)
        print_unjudged(p, r);
    for (size_t i = 0; i < r->n; i++) {
        p->totals->kinds[r->findings[i].kind]++;
        print_finding(p, r->user, &r->findings[i]);
    }
}

void audit_print_count(struct audit_printer *p, const struct audit_count *c)
{
    struct buf b;
    buf_init(&b, LINE_MAX_LEN);
    p->totals->kinds[AUDIT_WRONG_COUNT]++;
    if (p->json) {
        member(&b, "finding", audit_kind_name(AUDIT_WRONG_COUNT));
        member(&b, "target", c->target);
        buf_printf(&b, ",\"stored\":%" PRId64 ",\"counted\":%" PRId64 "}", c->stored, c->counted);
    } else {
        buf_printf(&b, "%s: %s: %" PRId64 " followers stored, %" PRId64 " there", c->target,
                   audit_kind_name(AUDIT_WRONG_COUNT), c->stored, c->counted);
    }
    write_line(p, &b);
}

static void print_repair(struct audit_printer *p, const char *of, const char *name, const char *repair,
                         const char *after)
{
    struct buf b;
    buf_init(&b, LINE_MAX_LEN);
    if (p->json) {
        member(&b, "repair", repair);
        member(&b, of, name);
        member(&b, "after", after);
        buf_add_char(&b, '}');
    } else {
        buf_printf(&b, "%s: %s; checked again: %s", name, repair, after);
    }
    write_line(p, &b);
}

void audit_print_repair(struct audit_printer *p, const char *user, bool dropped, enum audit_verdict after)
{
    if (after == AUDIT_INTACT || after == AUDIT_ABSENT)
        p->totals->repaired++;
    else
        p->totals->not_repaired++;
    print_repair(p, "user", user, dropped ? "dropped" : "rebuilt meanwhile", audit_verdict_name(after));
}

void audit_print_count_repair(struct audit_printer *p, const char *target, bool right)
{
    if (right)
        p->totals->repaired++;
    else
        p->totals->not_repaired++;
    print_repair(p, "target", target, "recounted", audit_verdict_name(right ? AUDIT_INTACT : AUDIT_WRONG));
}

/* ---- progress ---- */

static void format_eta(uint64_t done, uint64_t total, double rate, char *out, size_t size)
{
    if (total <= done || rate <= 0) {
        snprintf(out, size, "?");
        return;
    }
    uint64_t s = (uint64_t)((double)(total - done) / rate);
    snprintf(out, size, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60), (unsigned)(s % 60));
}

void audit_print_progress(struct audit_printer *p, const char *what, uint64_t done, uint64_t total)
{
    int64_t now = clock_mono_ms();
    if (now - p->shown_ms < (p->terminal ? TERMINAL_MS : FILE_MS))
        return;
    p->shown_ms = now;
    double rate = (double)done * 1000 / (double)(now - p->totals->began_ms + 1);
    char eta[32], of[32] = "?";
    format_eta(done, total, rate, eta, sizeof eta);
    if (total)
        snprintf(of, sizeof of, "%" PRIu64, total);
    fprintf(stderr, "%s%s %" PRIu64 "/%s, %.0f a second, %s left, %" PRIu64 " wrong%s",
            p->terminal ? "\r" : "", what, done, of, rate, eta,
            p->totals->timelines[AUDIT_WRONG] + p->totals->kinds[AUDIT_WRONG_COUNT],
            p->terminal ? "\033[K" : "\n");
    fflush(stderr);
    p->line_open = p->terminal;
}

/* ---- the end ---- */

static void totals_json(const struct audit_totals *t, struct buf *b)
{
    buf_add_str(b, "{\"summary\":{\"timelines\":{");
    for (unsigned i = 0; i < AUDIT_VERDICTS; i++)
        buf_printf(b, "%s\"%s\":%" PRIu64, i ? "," : "", audit_verdict_name(i), t->timelines[i]);
    buf_add_str(b, "},\"findings\":{");
    for (unsigned i = 0; i < AUDIT_KINDS; i++)
        buf_printf(b, "%s\"%s\":%" PRIu64, i ? "," : "", audit_kind_name(i), t->kinds[i]);
    buf_add_str(b, "},\"counts\":");
    if (t->with_counts)
        buf_printf(b, "{\"checked\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"unjudged\":%" PRIu64 "}",
                   t->counts.checked, t->counts.found, t->counts.unjudged);
    else
        buf_add_str(b, "null");
    buf_printf(b,
               ",\"repaired\":%" PRIu64 ",\"not_repaired\":%" PRIu64 ",\"stopped\":%s,\"ms\":%" PRId64 "}}",
               t->repaired, t->not_repaired, t->stopped ? "true" : "false", clock_mono_ms() - t->began_ms);
}

static void totals_text(const struct audit_totals *t, struct buf *b)
{
    uint64_t all = 0, found = 0;
    for (unsigned i = 0; i < AUDIT_VERDICTS; i++)
        all += t->timelines[i];
    buf_printf(b,
               "%s%" PRIu64 " timelines: %" PRIu64 " intact, %" PRIu64 " wrong, %" PRIu64 " absent, %" PRIu64
               " unjudged",
               t->stopped ? "stopped early. " : "", all, t->timelines[AUDIT_INTACT],
               t->timelines[AUDIT_WRONG], t->timelines[AUDIT_ABSENT], t->timelines[AUDIT_UNJUDGED]);
    if (t->with_counts)
        buf_printf(b, "; %" PRIu64 " counts: %" PRIu64 " wrong, %" PRIu64 " unjudged", t->counts.checked,
                   t->counts.found, t->counts.unjudged);
    for (unsigned i = 0; i < AUDIT_KINDS; i++) {
        if (t->kinds[i])
            buf_printf(b, "%s%s %" PRIu64, found++ ? ", " : "; found: ", audit_kind_name(i), t->kinds[i]);
    }
    if (t->repaired + t->not_repaired)
        buf_printf(b, "; %" PRIu64 " repaired, %" PRIu64 " not", t->repaired, t->not_repaired);
}

void audit_print_totals(struct audit_printer *p)
{
    struct buf b;
    buf_init(&b, LINE_MAX_LEN);
    if (p->json)
        totals_json(p->totals, &b);
    else
        totals_text(p->totals, &b);
    write_line(p, &b);
}
