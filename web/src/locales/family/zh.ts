export const zh = {
  heading: '我的家人',
  since: '从 {at} 起',
  heard: '最近一次收到信号：{age}',
  neverHeard: '还没有收到过设备的信号',
  empty: '还没有家人的信息可以看',
  emptyHelp: '请联系护理站：要由老人本人或监护人同意，您才能看到他（她）的情况。',
}

/** The same tree of texts in any language: a missing or a surplus key does not compile. */
export type FamilyTexts = Leaf<typeof zh>
type Leaf<Value> = Value extends string ? string : { [Key in keyof Value]: Leaf<Value[Key]> }
