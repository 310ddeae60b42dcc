// @ts-check
/** What the admin API gives, as types (docs/admin-api.md). Nothing here runs. */

/** @typedef {"within" | "breached" | "collecting" | "no_data"} Verdict */
/** @typedef {{value: number, low: number, high: number}} Estimate */
/** @typedef {{metric: string, verdict: Verdict, sentence: string, estimate: Estimate | null, limit: number | null}} Difference */
/** @typedef {{rps: number[], success: (number | null)[], p95: (number | null)[]}} Spark */
/**
 * @typedef {object} VersionFigures
 * @property {string} version
 * @property {boolean} is_target
 * @property {number} requests
 * @property {number} rps
 * @property {number | null} share
 * @property {Record<string, number>} codes
 * @property {Record<string, number>} reasons
 * @property {Estimate | null} success
 * @property {number | null} p50
 * @property {number | null} p95
 * @property {number | null} p99
 * @property {number} in_flight
 * @property {string | null} compared_with
 * @property {Difference[]} differences
 * @property {Verdict} verdict
 * @property {Spark} spark
 */
/**
 * @typedef {object} RingFigures
 * @property {string} ring
 * @property {string} version
 * @property {boolean} is_default
 * @property {boolean} is_killed
 * @property {number} target
 * @property {Estimate | null} actual
 * @property {number | null} by_hash
 * @property {number} members
 * @property {number} rps
 * @property {VersionFigures[]} versions
 * @property {Verdict} verdict
 */
/**
 * @typedef {object} ServiceFigures
 * @property {string} service
 * @property {string} rev
 * @property {string} weights_rev
 * @property {"redis" | "disk" | "config"} source
 * @property {string} freeze
 * @property {number} rps
 * @property {Verdict} verdict
 * @property {{verdict: Verdict, p_value: number | null, sentence: string}} split
 * @property {RingFigures[]} rings
 */
/**
 * @typedef {object} Picture
 * @property {number} at
 * @property {"fleet" | "instance"} scope
 * @property {number} window_seconds
 * @property {number} instances
 * @property {number} generation
 * @property {number} applied_everywhere
 * @property {"live" | "poll" | "down" | "off"} store
 * @property {Record<string, ServiceFigures>} services
 */
/** @typedef {{ring: string, version: string, weight: number, killed: boolean, requests: number}} RingState */
/**
 * @typedef {object} ServiceState
 * @property {string} rev
 * @property {string} freeze
 * @property {string[]} drained
 * @property {string[]} refused
 * @property {string[]} warnings
 * @property {Record<string, {up: boolean}>} versions
 * @property {RingState[]} rings
 */
/**
 * @typedef {object} State
 * @property {string} instance
 * @property {string} version
 * @property {number} started_at
 * @property {string[]} listen
 * @property {{revision: number, loaded_at: number, error: string, needs_restart: string[]}} config
 * @property {{state: string, staleness_seconds: number | null, last_error: string | null}} store
 * @property {Record<string, ServiceState>} services
 */
/** @typedef {{name: string | null, role: "viewer" | "operator" | null, by: string, reads_open: boolean, csrf: string | null}} Session */
/** @typedef {{before: string, after: string, direction: "inward" | "outward", percent: number}} Move */
/** @typedef {{dry_run: boolean, changes: string[], rev: string, command: string, moves: Move[]}} Done */
/**
 * @typedef {object} AuditEntry
 * @property {string} id
 * @property {string} service
 * @property {number} at
 * @property {string} actor
 * @property {string} host
 * @property {string} source
 * @property {string} action
 * @property {string[]} fields
 * @property {string[]} before
 * @property {string[]} after
 * @property {string} reason
 * @property {string} rev
 * @property {string} sentence
 * @property {boolean} can_undo
 */
/** @typedef {{at: number, kind: string, service: string | null, sentences: string[], generation: number}} News */
/** @typedef {{instance: string, is_self: boolean, is_fresh: boolean, at: number, generation: number, rev: Record<string, string>, source: Record<string, string>, refused: string[], warnings: string[], is_current: boolean}} Instance */
/** @typedef {{is_complete: boolean, instances: Instance[], current: number, count: number, sentence: string}} Fleet */
/** @typedef {{at: number, service: string, method: string, path: string, ring: string, version: string, reason: string, status: number, duration: number, identity: string}} Tapped */
/** @typedef {"pending" | "waiting" | "shifting" | "baking" | "proving" | "approval" | "finalising" | "succeeded" | "paused" | "rolling_back" | "rolled_back" | "rollback_stalled" | "superseded" | "aborted"} Phase */
/** @typedef {{service: string, id: string, phase: Phase, why: string, mode: string, stable: string, candidate: string, step: number, steps: number, headline: string, started_at: number, started_by: string, ended_at: number | null}} RolloutSummary */
/**
 * @typedef {object} StepProgress
 * @property {string} ring
 * @property {boolean} promotes
 * @property {number | null} weight
 * @property {number | null} holdback
 * @property {number} bake
 * @property {number} min_users
 * @property {number | null} deadline
 * @property {number} approvals
 * @property {"done" | "current" | "ahead"} stands
 * @property {number | null} entered_at
 * @property {number | null} left_at
 * @property {number} baked
 * @property {number} users
 * @property {string[]} approved_by
 * @property {string} sentence
 */
/** @typedef {{log_e: number, level: number, peak: number, is_reached: boolean, units_needed: number | null}} Proof */
/** @typedef {{units: number, outcomes: number}} Side */
/**
 * @typedef {object} Gauge
 * @property {string} name
 * @property {"outcome" | "latency" | "source"} kind
 * @property {string} title
 * @property {string} on_harm
 * @property {boolean} is_required
 * @property {Verdict | "uncalibrated"} standing
 * @property {Proof} harm
 * @property {Proof} proof
 * @property {Side} ring
 * @property {Side} control
 * @property {[number, number, number] | null} difference estimate, low, high, of rates
 * @property {number | null} limit
 * @property {number} alarms
 * @property {string} sentence
 */
/** @typedef {{at: number, estimate: number, low: number, high: number}} Point */
/** @typedef {{at: number, tick: number, kind: string, before: string, after: string, sentence: string, actor: string, reason: string}} RolloutEvent */
/** @typedef {{cause: string, seconds_to_verdict: number, users_hurt: number, requests_hurt: number, seconds_to_apply: number | null}} Rollback */
/**
 * @typedef {object} Progress
 * @property {string} id
 * @property {string} service
 * @property {string} stable
 * @property {string} candidate
 * @property {"enforce" | "observe"} mode
 * @property {Phase} phase
 * @property {string} why
 * @property {string} judged
 * @property {string} headline
 * @property {string} next
 * @property {number} step
 * @property {StepProgress[]} steps
 * @property {Gauge[]} gauges
 * @property {string[]} notes
 * @property {RolloutEvent[]} events
 * @property {number} started_at
 * @property {string} started_by
 * @property {string} reason
 * @property {number} at
 * @property {number} tick
 * @property {string} leader
 * @property {number} live
 * @property {number} applied
 * @property {Rollback | null} rollback
 * @property {Record<string, Point[]>} curves
 * @property {[number, string][]} markers
 * @property {number | null} ended_at
 */
/** @typedef {{outcome: string, cost: string, progress: Progress}} Report */

export {};
