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

export {};
