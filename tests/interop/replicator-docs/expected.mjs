export const expected = [];
