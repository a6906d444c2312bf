/** One change, as the gateway streams it: an entry of tebra:status or tebra:responses. */
export interface Update {
  type: 'update';
  id: string;
  timestamp: string;
  /** The stream's key, such as `tebra:responses`. */
  stream: string;
  data: Status & Record<string, string>;
}

/** The fields of an update; every value is text. */
export interface Status {
  correlationId: string;
  requestId: string;
  status: 'pending' | 'processing' | 'success' | 'error';
  timestamp: string;
  action: string;
  userId: string;
  attempt?: string;
  errorCode?: string;
}

/** What is answered with an error, or refused by the gateway. */
export class TebraError extends Error {
  /** One of README.md's error codes; the gateway's own, such as `token_revoked`; or `closed`. */
  code: string;
  requestId?: string;
  correlationId?: string;
  /** HTTP status, where the gateway refused. */
  status?: number;
}

export interface Options {
  /** Where the gateway is, such as `https://gateway.example.com`. */
  url: string;
  /**
   * Returns a Firebase ID token. It is asked with `true` for a new one when the last was
   * refused: `(refresh) => auth.currentUser.getIdToken(refresh)`.
   */
  token: (refresh?: boolean) => Promise<string> | string;
  /** How long a call may take, in ms; 30,000. */
  timeout?: number;
  /** After how many ms without a sign of life the event stream is opened again; 40,000. The gateway gives one every 15 s. */
  silence?: number;
  /** How long the event stream stays open when nothing needs it, in ms; 30,000. */
  linger?: number;
  /** In place of `globalThis.fetch`. */
  fetch?: typeof fetch;
}

export interface CallOptions {
  /** Ends the waiting. The request itself may have been sent, and is then carried out. */
  signal?: AbortSignal;
  /** In ms, in place of the client's; 0 for none. */
  timeout?: number;
  /** Told of the request's states in their order: each once, and none after one that followed it. */
  onStatus?: (status: Status & Record<string, string>) => void;
  /** The request's ID; the same one again is not called again, its answer is repeated. */
  id?: string;
  correlationId?: string;
}

type Call = (params?: object, options?: CallOptions) => Promise<any>;

export class Tebra {
  constructor(options: Options);
  /**
   * Sends a request and waits for its answer, over lost connections too. Rejects with a
   * TebraError; with a DOMException named TimeoutError, when the outcome is not known yet
   * (call again with the same id to learn it); or with the signal's reason.
   */
  call(action: string, params?: object, options?: CallOptions): Promise<any>;
  /**
   * Calls listener with every update of the user's requests, of other windows too. Returns what
   * ends that. onEnd is told why no more updates come: the gateway refuses the user for good, or
   * the client was closed. Lost connections are no end.
   */
  subscribe(listener: (update: Update) => void, onEnd?: (error: TebraError) => void): () => void;
  /** Ends the event stream; calls under way reject with code `closed`. */
  close(): void;

  syncSchedule: Call;
  getAppointments: Call;
  getPatient: Call;
  getPatients: Call;
  searchPatients: Call;
  getProviders: Call;
  testConnection: Call;
  health: Call;
  getHealthStatus: Call;
  createAppointment: Call;
  updateAppointment: Call;
}
