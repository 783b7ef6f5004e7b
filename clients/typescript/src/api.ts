/**
 * The API's words as types: what goes out, what comes back, what a stream says.
 *
 * Names are those on the wire. How a call is made is none of this file's business.
 */

export type TargetType = "user" | "group";

/** A conversation as the caller addresses it: the other user, or the group. */
export interface Chat {
  target: string;
  target_type: TargetType;
}

/** A message. `msg` and `extra` are empty once it is recalled. */
export interface Message extends Chat {
  /** Dense per conversation, from 1. */
  msg_index: number;
  /** The recall that took it back; 0: none. */
  recall_index: number;
  msg: string;
  extra: string;
  /** Unix time in seconds. */
  timestamp: number;
  sender: string;
}

/** A message was taken back. */
export interface Recall extends Chat {
  msg_index: number;
  /** Dense per conversation, from 1. */
  recall_index: number;
  /** Who did it; empty when it comes from history, which does not keep that. */
  by: string;
}

/** Somebody has read up to a message. */
export interface Ack extends Chat {
  user: string;
  msg_index: number;
}

/** Something that is told to those connected and never stored, like typing. */
export interface Signal extends Chat {
  user: string;
  kind: string;
  data: unknown;
}

/** A group changed: somebody came or went, or it was administered. */
export interface GroupChange extends Chat {
  /** `create`, `add`, `kick`, `leave`, `duty`, `rename`, `mute`, `dismiss`; later servers may have more. */
  action: string;
  /** Whom it is about; of `rename` and `dismiss`, who did it. Empty when it is about many at once. */
  user: string;
  by: string;
  /** With one `add` or `kick` of many users: how many. Whoever is one of them hears of themselves first. */
  count?: number;
  /** With `duty`. */
  duty?: Duty;
  /** With `rename`. */
  name?: string;
  /** With `mute`: until when, Unix seconds; 0: they may send again. */
  until?: number;
}

/** How far a reader has a conversation. */
export interface Position extends Chat {
  msg_index: number;
  recall_index: number;
}

/** Where a conversation stands. */
export interface Standing extends Position {
  /** The caller's read cursor. */
  ack_index: number;
  unread: number;
}

/** The first word of a stream. */
export interface Hello {
  user: string;
  /** The newest conversations. */
  chats: Standing[];
  /** Whether there are conversations behind these. */
  more?: boolean;
  /** Changes when a restore took history back. */
  epoch?: number;
}

export interface SendRequest extends Chat {
  msg: string;
  extra?: string;
  /** Makes a retry safe; made up if absent. At most 64 bytes. */
  client_msg_id?: string;
}

export interface Receipt {
  msg_index: number;
  /** Unix time in seconds. */
  timestamp: number;
  /** The same moment in nanoseconds, in decimal. */
  timestamp_ns: string;
  /** Whether this answers a retry of what was stored already. */
  duplicate: boolean;
}

export interface MessageRequest extends Chat {
  msg_index: number;
}

export interface PullRequest extends Chat {
  /** `after`: indices from the start up. `before`: indices up to the start, descending. */
  direction: "before" | "after";
  /** 0: no messages. */
  start_msg_index: number;
  /** 0: no recalls. */
  start_recall_index: number;
  /** 1 to 50, for each half. */
  count: number;
  /** Holds an empty `after` pull until there is something; at most 30,000. */
  wait_ms?: number;
}

export interface Page {
  msgs: Message[];
  /** Recall index to message index. */
  recalls: Record<string, number>;
  max_msg_index: number;
  max_recall_index: number;
  /** The oldest message that the caller may read. */
  min_msg_index: number;
  epoch: number;
}

export interface ListRequest {
  /** Of the page before; absent: from the newest conversation. */
  cursor?: string;
  /** At most 200; absent: 50. */
  count?: number;
}

export interface ListedChat extends Standing {
  /** The newest message, unless there is none to read. */
  last: Message | null;
  timestamp_ns: string;
}

export interface ChatList {
  chats: ListedChat[];
  total_unread: number;
  /** Empty: there is no more. */
  cursor: string;
}

export interface SyncRequest {
  cursors: Position[];
  /** At most 30,000. */
  wait_ms?: number;
  /** Of each conversation; at most 50. */
  count?: number;
}

/** A conversation that moved past the position given, or of which none was given. */
export interface ChatDelta extends Chat, Page {
  ack_index: number;
  unread: number;
  /** Whether there is more of it than this: pull. */
  more: boolean;
}

export interface Synced {
  chats: ChatDelta[];
  /** Whether further conversations moved: sync again. */
  more?: boolean;
}

export interface SignalRequest extends Chat {
  kind: string;
  /** Any JSON value of up to 1 KiB. */
  data?: unknown;
}

/** 0: member, 2: owner, 3: admin. */
export type Duty = 0 | 2 | 3;

export interface GroupInfo {
  group_id: string;
  name: string;
  /** Unix time in seconds. */
  created: number;
  members_count: number;
  /** The caller's own. */
  duty: Duty;
}

export interface GroupList {
  groups: GroupInfo[];
  cursor: string;
}

export interface BlockList {
  user_ids: string[];
  cursor: string;
}

export interface GroupMembers {
  members: GroupMember[];
  cursor: string;
}

export interface GroupMember {
  user_id: string;
  duty: Duty;
  /** Unix time in seconds. */
  joined: number;
  /** Until when they may send nothing, Unix seconds; 0, or absent from an earlier server: they may. */
  muted_until?: number;
}

/** An event of a stream, as it is on the wire. */
export type StreamEvent =
  | ({ type: "hello" } & Hello)
  | ({ type: "msg"; content: Message } & Chat)
  | ({ type: "recall"; content: { msg_index: number; recall_index: number; by: string } } & Chat)
  | ({ type: "ack"; content: { user: string; msg_index: number } } & Chat)
  | ({ type: "signal"; content: { user: string; kind: string; data: unknown } } & Chat)
  | ({ type: "group"; content: Omit<GroupChange, keyof Chat> } & Chat)
  | { type: "behind"; chats: Position[] }
  | { type: "close"; code: number; msg: string };

/** What a resume could not replay. */
export interface Resumed {
  resumed: number;
  errors?: (Chat & { code: number; msg: string })[];
}
